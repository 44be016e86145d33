"""Which torch is installed, found without importing it: that takes seconds."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from layerscale_core.errors import BackendError


@dataclass(frozen=True, slots=True)
class InstalledTorch:
    """A torch distribution, as its own ``version.py`` describes it.

    Attributes:
        platforms: what it was built for, with versions: ``cuda`` or ``hip``; empty for a CPU build.
    """

    version: str
    platforms: dict[str, str]


def find_torch(extra: str) -> InstalledTorch:
    """The torch of this environment, with Triton beside it.

    Args:
        extra: of this distribution, which brings both.

    Raises:
        BackendError: one of them is missing, or torch is not whole.
    """
    for name in ("torch", "triton"):
        if importlib.util.find_spec(name) is None:
            raise BackendError(f"{name} is not installed: pip install 'layerscale-engine[{extra}]'")
    found = importlib.util.find_spec("torch")
    folders = list(found.submodule_search_locations or ()) if found else []
    try:
        return read_version(Path(folders[0], "version.py").read_text())
    except (IndexError, OSError):
        raise BackendError("torch is installed, but not whole: its version.py cannot be read") from None


def read_version(source: str) -> InstalledTorch:
    """From the text of ``torch/version.py``."""
    texts = dict(re.findall(r"^(\w+)(?:\s*:[^=]*)?\s*=\s*'([^']*)'", source, re.MULTILINE))
    platforms = {name: texts[name] for name in ("cuda", "hip") if texts.get(name)}
    return InstalledTorch(texts.get("__version__", "of an unknown version"), platforms)
