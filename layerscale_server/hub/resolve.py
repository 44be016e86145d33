"""From what the user wrote after ``--model`` to a path on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerscale_core.errors import ModelNotFoundError
from layerscale_core.plugins import PluginRegistry
from layerscale_server.hub.reference import ModelReference
from layerscale_server.paths import user_path

if TYPE_CHECKING:
    from layerscale_server.hub.repository import Repository


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine.

    Attributes:
        path: an existing file or directory.
        model_id: the name clients use: the repository id, or the folder's name, or the file's without extension.
    """

    path: Path
    model_id: str


def resolve_model(
    name: str,
    registry: PluginRegistry | None = None,
    *,
    progress: bool = True,
    endpoint: str | None = None,
    cache_dir: Path | None = None,
) -> ResolvedModel:
    """Find a model: an existing path wins; else ``name`` is a repository id, and the hub or its cache has the files.

    The environment of ``huggingface_hub`` applies: ``HF_TOKEN``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT``, ``HF_HOME``.

    Args:
        name: a path, or ``org/name[@revision][:QUANTIZATION | /file.gguf | /file.onnx]``.
        registry: refuses a model that it cannot open, before the weights are downloaded.
        progress: show a progress bar while downloading, if standard error is a terminal.
        endpoint: address of the hub; None = ``HF_ENDPOINT``, or the public one.
        cache_dir: where downloaded files live; None = the cache of ``huggingface_hub``.

    Raises:
        ModelNotFoundError: no such path, and no repository that can be reached, read and stored here.
        ModelFileError, UnsupportedModelError: a model of the hub that could not be opened.
    """
    found = _find(name)
    if isinstance(found, Path):
        whole = found.resolve()
        return ResolvedModel(found, whole.name if whole.is_dir() else whole.stem)
    repository = _repository(found, progress=progress, endpoint=endpoint, cache_dir=cache_dir)
    return ResolvedModel(repository.fetch(registry), found.repo_id)


@contextlib.contextmanager
def resolve_headers(name: str, *, endpoint: str | None = None, cache_dir: Path | None = None) -> Iterator[Path]:
    """A model's path while the block lasts, to be opened for its metadata alone: weights may end after their headers.

    Arguments and errors are those of ``resolve_model``.
    """
    found = _find(name)
    if isinstance(found, Path):
        yield found
        return
    repository = _repository(found, progress=True, endpoint=endpoint, cache_dir=cache_dir)
    with repository.headers() as path:
        yield path


def _find(name: str) -> Path | ModelReference:
    path = user_path(name)
    if name and _exists(path):
        return path
    reference = ModelReference.parse(name)
    if reference is None:
        raise ModelNotFoundError(
            f"no file or directory {name!r}, and it is not a repository id "
            "(org/name, org/name:Q4_K_M, org/name/file.gguf or org/name@revision)"
        )
    return reference


def _repository(
    reference: ModelReference, *, progress: bool, endpoint: str | None, cache_dir: Path | None
) -> Repository:
    from layerscale_server.hub.repository import Repository  # noqa: PLC0415 (a local path needs no HTTP client)

    return Repository(reference, endpoint=endpoint, cache_dir=cache_dir, progress=progress)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ModelNotFoundError(f"cannot look at {str(path)!r}: {error.strerror}") from error
