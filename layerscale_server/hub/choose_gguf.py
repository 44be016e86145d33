"""Which of a repository's GGUF models to serve."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from layerscale_core.errors import ModelNotFoundError
from layerscale_server.hub.reference import ModelReference

DEFAULT_QUANTIZATION = "Q4_K_M"
"""Taken when a repository offers several: the usual balance of size and quality."""

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_NO_LANGUAGE_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)
"""Image projectors, and statistics that guided a quantisation."""

_MAX_LISTED = 20


def gguf_models(names: Collection[str]) -> list[str]:
    """The GGUF models among a repository's files: each one file, or the first of its parts."""
    files = (name for name in names if name.endswith(".gguf") and not _NO_LANGUAGE_MODEL.search(name))
    return sorted(name for name in files if _first_part(name) == name)


def choose_gguf(names: Collection[str], reference: ModelReference) -> tuple[str, ...]:
    """Pick one GGUF model from a repository's file names: its one file, or all of its parts in order.

    The named file; else the only model of the quantisation asked for, or the only one at all; else the only one of the
    default quantisation.

    Raises:
        ModelNotFoundError: none fits, or several do; the line lists the choices. Or a part is missing.
    """
    models = gguf_models(names)
    if reference.file is not None:
        if reference.file not in names:
            raise ModelNotFoundError(f"{reference.repo_id} has no file {reference.file!r}; {_choices(models)}")
        return _parts(reference.file, names, reference)
    quantization = reference.quantization
    if quantization is None:
        fitting = models if len(models) == 1 else _of_quantization(models, DEFAULT_QUANTIZATION)
    else:
        fitting = _of_quantization(models, quantization)
    if len(fitting) == 1:
        return _parts(fitting[0], names, reference)
    kind = f"{quantization} file" if quantization else "file to take by default"
    problem = f"no {kind}" if not fitting else f"more than one {kind}"
    raise ModelNotFoundError(f"{reference.repo_id} has {problem}; {_choices(fitting or models)}")


def _first_part(name: str) -> str:
    """The first of the parts that a file is one of, or the file itself."""
    match = _PART.fullmatch(name)
    return f"{match['stem']}-00001-of-{match['count']}.gguf" if match else name


def _parts(name: str, names: Collection[str], reference: ModelReference) -> tuple[str, ...]:
    match = _PART.fullmatch(name)
    if match is None:
        return (name,)
    parts = []
    for number in range(1, int(match["count"]) + 1):
        parts.append(f"{match['stem']}-{number:05}-of-{match['count']}.gguf")
        if parts[-1] not in names:
            raise ModelNotFoundError(f"{reference.repo_id} lacks {parts[-1]}, one of the model's parts")
    return tuple(parts)


def _of_quantization(models: Sequence[str], quantization: str) -> list[str]:
    """Those whose name ends with the quantisation, or whose folder's does."""
    wanted = re.escape(quantization)
    pattern = re.compile(rf"(?:^|[-._/]){wanted}(?:(?:-\d{{5}}-of-\d{{5}})?\.gguf|/[^/]+)$", re.IGNORECASE)
    return [name for name in models if pattern.search(name)]


def _choices(models: Sequence[str]) -> str:
    """The models to choose from, as the end of an error line."""
    if not models:
        return "it has no GGUF file to serve"
    more = ", …" if len(models) > _MAX_LISTED else ""
    return f"name one of: {', '.join(models[:_MAX_LISTED])}{more}"
