"""Opening a model file: only a regular, readable, non-empty one, and one clear line otherwise."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from layerscale_core.errors import ModelFileError


def check_path(path: Path) -> None:
    """Refuse what cannot be a model before any format looks at it, a pipe that would block for ever included.

    Raises:
        ModelFileError: no such path, no permission, neither a regular file nor a directory, or an empty file.
    """
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
        elif stat.S_ISDIR(status.st_mode):
            os.scandir(path).close()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ModelFileError(str(path), _reason(error)) from error
    if stat.S_ISDIR(status.st_mode):
        return
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(str(path), "it is not a regular file")
    if status.st_size == 0:
        raise ModelFileError(str(path), "the file is empty")


def read_file(path: Path, max_bytes: int) -> bytes:
    """A whole small file.

    Raises:
        ModelFileError: it cannot be read, or is larger.
    """
    check_path(path)
    num_bytes = path.stat().st_size
    if num_bytes > max_bytes:
        raise ModelFileError(str(path), f"it has more than {max_bytes:,} bytes")
    with path.open("rb") as file:
        return file.read(num_bytes)


def map_file(path: Path) -> mmap.mmap:
    """Map a whole file for reading.

    Raises:
        ModelFileError: it cannot be opened or mapped.
    """
    check_path(path)
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: it became empty meanwhile
        raise ModelFileError(str(path), _reason(error)) from error


def _reason(error: OSError | ValueError) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error)).lower()
