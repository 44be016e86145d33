"""The directory that holds saved sessions, one file each. A file is there whole, or as it was before."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import (
    NotFoundError,
    SavedStateError,
    StartupError,
    StateNotReadError,
    StateNotSavedError,
)
from layerscale_core.sessions.saved_state import Fingerprint, SavedSession
from layerscale_core.sessions.state_file import StateReader, write_state

SUFFIX = ".session"
REJECTED = "rejected"
_PARTIAL = ".partial"
_IS_NO_FILE = {errno.EISDIR, errno.ELOOP, errno.ENXIO}
"""What the system says to the opening of a folder, a link or a socket; anything else is about disk or process."""
_SESSION_ID = re.compile(r"sess_[0-9a-f]{8,64}")


class StateDirectory:
    """Saved sessions on disk, for their owner alone: conversations are private. One writer at a time.

    Raises:
        StartupError: it cannot be made or written, or another server uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileExistsError:
            raise StartupError(f"cannot use --state-dir {path}: it is no directory") from None
        except OSError as error:
            raise StartupError(f"cannot use --state-dir {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.access(path, os.W_OK | os.X_OK):
                raise StartupError(f"cannot use --state-dir {path}: it cannot be written")
            for partial in path.glob(f"*{_PARTIAL}"):  # of a save that never came to its end
                partial.unlink()
        except BlockingIOError:
            self.close()
            raise StartupError(f"cannot use --state-dir {path}: another server uses it") from None
        except OSError as error:
            self.close()
            raise StartupError(f"cannot use --state-dir {path}: {error.strerror}: {error.filename}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others use it."""
        os.close(self._descriptor)

    def ids(self) -> list[str]:
        """The sessions that a file claims to hold, the one used last first."""
        files = sorted(self.path.glob(f"*{SUFFIX}"), key=lambda file: file.lstat().st_mtime_ns, reverse=True)
        return [file.name.removesuffix(SUFFIX) for file in files]

    def holds(self, session_id: str) -> bool:
        """Whether a session is saved."""
        return bool(_SESSION_ID.fullmatch(session_id)) and self._file(session_id).is_file()

    def write(self, fingerprint: Fingerprint, session: SavedSession, pages: NDArray[np.uint8]) -> int:
        """Save a session in the place of what was saved of it before; returns the bytes.

        The new file takes the old one's name when all of it is on the disk.

        Raises:
            StateNotSavedError: it cannot be written; what was saved before is kept.
        """
        target = self._file(session.session_id)
        partial = target.with_suffix(_PARTIAL)
        try:
            with _create(partial) as file:
                write_state(file, fingerprint, session, pages)
                file.flush()
                os.fsync(file.fileno())
                num_bytes = file.tell()
            os.utime(partial, (session.last_used_at, session.last_used_at))
            partial.replace(target)
            os.fsync(self._descriptor)
        except (OSError, SavedStateError, ValueError) as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise StateNotSavedError(f"the session cannot be saved: {reason}; what was saved before is kept") from error
        return num_bytes

    @contextlib.contextmanager
    def open(self, session_id: str) -> Iterator[StateReader]:
        """What was saved of a session, as long as the ``with`` lasts.

        Raises:
            NotFoundError: nothing.
            SavedStateError: the file is not one that ``write`` wrote under this name, or is damaged.
            StateNotReadError: it cannot be read now, and may be sound.
        """
        if not _SESSION_ID.fullmatch(session_id):
            raise SavedStateError("its name is no session's")
        try:
            with _open(self._file(session_id)) as file:
                reader = StateReader(file, os.fstat(file.fileno()).st_size)
                if reader.header.session.session_id != session_id:
                    raise SavedStateError("it holds another session than its name says")
                yield reader
        except FileNotFoundError:
            raise NotFoundError("no session is saved under this id", code="session_not_found") from None
        except OSError as error:
            if error.errno in _IS_NO_FILE:
                raise SavedStateError("it is no regular file") from None
            raise StateNotReadError(f"what is saved of the session cannot be read: {error.strerror}") from error

    def remove(self, session_id: str) -> bool:
        """Forget a session; returns whether it was saved.

        Raises:
            StateNotSavedError: its file cannot be removed.
        """
        if not self.holds(session_id):
            return False
        try:
            self._file(session_id).unlink()
            os.fsync(self._descriptor)
        except OSError as error:
            reason = f"what is saved of the session cannot be removed: {error.strerror}"
            raise StateNotSavedError(reason) from error
        return True

    def set_aside(self, session_id: str) -> Path:
        """Move a file out of the way, to be looked at by a person; returns where it is now."""
        rejected = self.path / REJECTED
        rejected.mkdir(mode=0o700, exist_ok=True)
        target = next(path for path in _names(rejected, session_id) if not path.exists())
        return self._file(session_id).rename(target)

    def _file(self, session_id: str) -> Path:
        return self.path / f"{session_id}{SUFFIX}"


def _names(directory: Path, session_id: str) -> Iterator[Path]:
    yield directory / f"{session_id}{SUFFIX}"
    for number in itertools.count(1):
        yield directory / f"{session_id}.{number}{SUFFIX}"


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb")


def _open(path: Path) -> BinaryIO:
    """Open a regular file: a link is not followed, and a pipe does not block."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise SavedStateError("it is no regular file")
    return file
