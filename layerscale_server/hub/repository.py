"""One repository of the hub: list its files, choose one, download it into the shared cache.

Only the chosen file is fetched, and nothing of a repository is executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from layerscale_core.errors import ModelNotFoundError
from layerscale_server.hub.choose_file import choose_file
from layerscale_server.hub.explain import explain
from layerscale_server.hub.reference import ModelReference

log = logging.getLogger(__name__)

_LIST_TIMEOUT_S = 10.0
_LEFTOVER_AGE_S = 600.0
"""A partial file that has not grown for so long has no process any more: the hub's own timeouts are far shorter."""


class Repository:
    """The repository that a reference names, and its place in the local cache."""

    def __init__(
        self, reference: ModelReference, *, endpoint: str | None, cache_dir: Path | None, progress: bool
    ) -> None:
        self._reference = reference
        self._api = HfApi(endpoint=endpoint)
        self._cache_dir = cache_dir if cache_dir is not None else Path(constants.HF_HUB_CACHE)
        self._progress = progress

    def fetch(self) -> Path:
        """The chosen file's path in the cache, downloaded if it is not there or has changed.

        A hub that cannot be asked is no reason to fail while the cache holds a fitting file.

        Raises:
            ModelNotFoundError: with the cause and the remedy in one line.
        """
        # The exceptions of the HTTP client beneath huggingface_hub are not part of its interface and have changed with
        # the client, so that whatever a call of the library raises is translated here.
        try:
            info = self._api.model_info(
                self._reference.repo_id,
                revision=self._reference.revision,
                files_metadata=True,
                timeout=_LIST_TIMEOUT_S,
            )
        except Exception as error:
            return self._find_in_cache(error)
        files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        chosen = files[choose_file(list(files), self._reference)]
        if self._is_cached(chosen, info.sha):
            return self._download(chosen)
        self._remove_leftovers()
        self._check_disk_space(chosen)
        log.info("downloading %s of %s (%s)", chosen.rfilename, self._reference.repo_id, _megabytes(chosen.size))
        path = self._download(chosen)
        _verify(path, chosen)
        return path

    def _find_in_cache(self, hub_error: Exception) -> Path:
        reference = self._reference
        try:
            snapshot = Path(
                snapshot_download(
                    reference.repo_id,
                    revision=reference.revision,
                    cache_dir=self._cache_dir,
                    allow_patterns=reference.file or "*.gguf",
                    local_files_only=True,
                )
            )
        except Exception:
            raise self._not_found(hub_error) from hub_error
        names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.gguf") if path.exists()]
        chosen = choose_file(names, reference)
        if not isinstance(hub_error, OfflineModeIsEnabled):
            log.warning("%s; serving %s from the cache", explain(hub_error, reference, self._api.endpoint), chosen)
        return snapshot / chosen

    def _is_cached(self, file: RepoSibling, commit: str | None) -> bool:
        cached = try_to_load_from_cache(
            self._reference.repo_id, file.rfilename, cache_dir=self._cache_dir, revision=commit
        )
        return isinstance(cached, str)

    def _remove_leftovers(self) -> None:
        """Remove what downloads of this repository left when their process was killed; a live one still grows."""
        folder = self._cache_dir / f"models--{self._reference.repo_id.replace('/', '--')}" / "blobs"
        for leftover in folder.glob("*.incomplete"):
            with contextlib.suppress(FileNotFoundError):  # another process may clean up too, or finish
                if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE_S:
                    leftover.unlink()

    def _check_disk_space(self, file: RepoSibling) -> None:
        existing = next(folder for folder in (self._cache_dir, *self._cache_dir.absolute().parents) if folder.exists())
        free_bytes = shutil.disk_usage(existing).free
        if file.size is not None and file.size > free_bytes:
            raise ModelNotFoundError(
                f"no room for {file.rfilename} of {self._reference.repo_id}: it has {_megabytes(file.size)}, and "
                f"{_megabytes(free_bytes)} are free in {self._cache_dir}; free some, or set HF_HOME to another place"
            )

    def _download(self, file: RepoSibling) -> Path:
        """Asked for by branch, not by commit, so that the cache can answer for the branch without the network."""
        try:
            with _progress_bars(self._progress):
                return Path(
                    self._api.hf_hub_download(
                        self._reference.repo_id,
                        file.rfilename,
                        revision=self._reference.revision,
                        cache_dir=self._cache_dir,
                    )
                )
        except Exception as error:
            raise self._not_found(error) from error

    def _not_found(self, error: Exception) -> ModelNotFoundError:
        return ModelNotFoundError(explain(error, self._reference, self._api.endpoint))


def _verify(path: Path, file: RepoSibling) -> None:
    """Compare a new file with the hash the hub gives for it; a plain HTTP download is checked for its size alone."""
    if file.lfs is None:
        return
    with path.open("rb") as content:
        actual = hashlib.file_digest(content, "sha256").hexdigest()
    if actual != file.lfs.sha256:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise ModelNotFoundError(
            f"{file.rfilename} arrived damaged (sha256 {actual[:16]}…, the hub says {file.lfs.sha256[:16]}…); try again"
        )


@contextlib.contextmanager
def _progress_bars(wanted: bool) -> Iterator[None]:
    """Without bars if they are not wanted; with them huggingface_hub decides, and shows none off a terminal."""
    if wanted or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _megabytes(num_bytes: int | None) -> str:
    return "unknown size" if num_bytes is None else f"{num_bytes / 1e6:,.1f} MB"
