"""What importing core must not load; in a process of its own, because this one has loaded everything."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "triton", "fastapi", "starlette", "uvicorn", "tokenizers", "pytest", "layerscale_server")


def loaded_after(code: str) -> set[str]:
    """The modules of a fresh interpreter after it ran some code."""
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("module", ["layerscale_core", "layerscale_core.specs", "layerscale_core.plugins"])
def test_core_loads_no_vendor_no_web_framework_and_no_backend(module: str) -> None:
    loaded = loaded_after(f"import {module}")
    assert not {name for name in loaded if name.startswith("layerscale_backend")}
    assert not loaded & set(HEAVY)


def test_discovery_and_probing_load_no_executor() -> None:
    loaded = loaded_after(
        "from layerscale_core.plugins import PluginRegistry\nPluginRegistry.discover().choose_backend('cpu')"
    )
    assert not loaded & set(HEAVY)
    assert "layerscale_core.forward" not in loaded
    assert "layerscale_core.reference.kernels" not in loaded
