"""From what the user wrote after ``--model`` to a path on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from layerscale_core.errors import ModelNotFoundError
from layerscale_server.hub.reference import ModelReference


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
    name: str, *, progress: bool = True, endpoint: str | None = None, cache_dir: Path | None = None
) -> ResolvedModel:
    """Find a model: an existing path wins; else ``name`` is a repository id, and the hub or its cache has the file.

    The environment of ``huggingface_hub`` applies: ``HF_TOKEN``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT``, ``HF_HOME``.

    Args:
        name: a path, or ``org/name[@revision][:QUANTIZATION | /file.gguf]``.
        progress: show a progress bar while downloading, if standard error is a terminal.
        endpoint: address of the hub; None = ``HF_ENDPOINT``, or the public one.
        cache_dir: where downloaded files live; None = the cache of ``huggingface_hub``.

    Raises:
        ModelNotFoundError: no such path, and no repository that can be reached, read and stored here.
    """
    path = Path(name).expanduser()
    if name and _exists(path):
        whole = path.resolve()
        return ResolvedModel(path, whole.name if whole.is_dir() else whole.stem)
    reference = ModelReference.parse(name)
    if reference is None:
        raise ModelNotFoundError(
            f"no file or directory {name!r}, and it is not a repository id "
            "(org/name, org/name:Q4_K_M or org/name/file.gguf)"
        )
    from layerscale_server.hub.repository import Repository  # noqa: PLC0415 (a local path needs no HTTP client)

    repository = Repository(reference, endpoint=endpoint, cache_dir=cache_dir, progress=progress)
    return ResolvedModel(repository.fetch(), reference.repo_id)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ModelNotFoundError(f"cannot look at {str(path)!r}: {error.strerror}") from error
