"""The files of one repository in the cache that all Hugging Face tools share.

Each lies in ``blobs`` under its hash, whatever its name and commit; snapshots link to it.
Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from pathlib import Path

from huggingface_hub.hf_api import RepoSibling

from layerscale_core.errors import ModelNotFoundError

_LEFTOVER_AGE_S = 600.0
"""A partial file that has not grown for so long has no process any more: the hub's own timeouts are far shorter."""


class Blobs:
    """What is stored of a repository, finished and not."""

    def __init__(self, cache_dir: Path, repo_id: str) -> None:
        self._cache_dir = cache_dir
        self._folder = cache_dir / f"models--{repo_id.replace('/', '--')}" / "blobs"

    def has(self, file: RepoSibling) -> bool:
        """Whether a file is there, if only under another commit."""
        digest = _digest(file)
        return digest is not None and (self._folder / digest).exists()

    def stored_bytes(self) -> int:
        """Bytes of all files, those that are being written included."""
        num_bytes = 0
        for blob in self._folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # it was just given its final name
                num_bytes += blob.stat().st_size
        return num_bytes

    def remove_leftovers(self) -> None:
        """Remove what downloads of this repository left when their process was killed; a live one still grows."""
        for leftover in self._folder.glob("*.incomplete"):
            with contextlib.suppress(OSError):  # another process may clean up too, or finish; or the cache is read-only
                if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE_S:
                    leftover.unlink()

    def check_room(self, num_bytes: int, what: str) -> None:
        """Refuse a download that the disk has no room for, before its first byte.

        Raises:
            ModelNotFoundError: with what is needed, what there is, and where.
        """
        existing = next(folder for folder in (self._cache_dir, *self._cache_dir.parents) if folder.exists())
        free_bytes = shutil.disk_usage(existing).free
        if num_bytes > free_bytes:
            raise ModelNotFoundError(
                f"no room for {what}: {file_size(num_bytes)} are still to be fetched, and {file_size(free_bytes)} are "
                f"free in {self._cache_dir}; free some, or set HF_HOME to another place"
            )

    def verify(self, path: Path, file: RepoSibling) -> None:
        """Compare a new file with the hash the hub gives for it; a plain HTTP download is checked for its size alone.

        Raises:
            ModelNotFoundError: they differ; the file is removed.
        """
        expected = _digest(file)
        actual = _git_digest(path) if file.lfs is None else _sha256(path)
        if expected is None or expected == actual:
            return
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise ModelNotFoundError(
            f"{file.rfilename} arrived damaged (hash {actual[:16]}…, the hub says {expected[:16]}…); try again"
        )


def file_size(num_bytes: int) -> str:
    """A file's size for people, as the hub shows it."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _digest(file: RepoSibling) -> str | None:
    """SHA-256 of a large file, git's hash of a small one."""
    return file.blob_id if file.lfs is None else file.lfs.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _git_digest(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()
