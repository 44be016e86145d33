"""Which of a repository's files to serve."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerscale_core.errors import ModelNotFoundError
from layerscale_server.hub.reference import ModelReference

DEFAULT_QUANTIZATION = "Q4_K_M"
"""Taken when a repository offers several: the usual balance of size and quality."""

_SPLIT_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_MAX_LISTED = 20


def choose_file(names: Sequence[str], reference: ModelReference) -> str:
    """Pick one GGUF file from a repository's file names.

    The named file; else the only one of the quantisation asked for, or the only one at all; else the only one of the
    default quantisation.

    Raises:
        ModelNotFoundError: none fits, or several do; the line lists the choices.
    """
    if reference.file is not None:
        if reference.file in names:
            return reference.file
        raise ModelNotFoundError(f"{reference.repo_id} has no file {reference.file!r}; {_choices(names)}")
    candidates = [name for name in names if _is_language_model(name)]
    if not candidates:
        raise ModelNotFoundError(f"{reference} has no GGUF file to serve; choose a repository that has one")
    quantization = reference.quantization
    if quantization is None:
        fitting = candidates if len(candidates) == 1 else _of_quantization(candidates, DEFAULT_QUANTIZATION)
    else:
        fitting = _of_quantization(candidates, quantization)
    if len(fitting) == 1:
        return fitting[0]
    kind = f"{quantization} file" if quantization else "file to take by default"
    problem = f"no {kind}" if not fitting else f"more than one {kind}"
    raise ModelNotFoundError(f"{reference.repo_id} has {problem}; {_choices(fitting or candidates)}")


def _is_language_model(name: str) -> bool:
    """GGUF files also hold image projectors, and parts of a model that say nothing alone."""
    return name.endswith(".gguf") and "mmproj" not in name.lower() and not _SPLIT_PART.search(name)


def _of_quantization(names: Sequence[str], quantization: str) -> list[str]:
    pattern = re.compile(rf"(?:^|[-._/]){re.escape(quantization)}\.gguf$", re.IGNORECASE)
    return [name for name in names if pattern.search(name)]


def _choices(names: Sequence[str]) -> str:
    """The files to choose from, as the end of an error line."""
    offered = sorted(name for name in names if _is_language_model(name))
    if not offered:
        return "it has no GGUF file to serve"
    more = ", …" if len(offered) > _MAX_LISTED else ""
    return f"name one of: {', '.join(offered[:_MAX_LISTED])}{more}"
