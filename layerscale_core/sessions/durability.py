"""Sessions that outlive the process: saved to a directory, and restored from there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import InvalidRequestError, NotFoundError, RequestError, SavedStateError
from layerscale_core.sessions.actor import session_not_found
from layerscale_core.sessions.saved_state import Fingerprint, SavedSession, check_saved
from layerscale_core.sessions.session import Session
from layerscale_core.sessions.sessions import Sessions
from layerscale_core.sessions.snapshot import FillPages, page_ids_of, snapshot
from layerscale_core.sessions.state_directory import StateDirectory
from layerscale_core.sessions.state_file import StateReader
from layerscale_core.specs.executor import Executor
from layerscale_core.specs.stream_type import StreamType

logger = logging.getLogger(__name__)

Pages = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Capture:
    """A session and its pages at one moment."""

    session: SavedSession
    pages: Pages


class SavedSessions:
    """The sessions of a server on disk.

    Threads: any but the engine's, and no event loop, as the disk is waited for. ``restore_all`` and ``save_all`` take
    the place of the engine thread: one comes before it starts, the other after it has ended.

    Args:
        fingerprint: of this server; a session is restored where its own is equal.
        vocab_size: every token is below it.
    """

    def __init__(
        self,
        sessions: Sessions,
        executor: Executor,
        directory: StateDirectory,
        fingerprint: Fingerprint,
        *,
        vocab_size: int,
    ) -> None:
        self._sessions = sessions
        self._executor = executor
        self._directory = directory
        self._fingerprint = fingerprint
        self._vocab_size = vocab_size
        self._writing = threading.Lock()

    def capture(self, session: Session) -> Future[Capture]:
        """Copy a session as it is between two of its requests; fails with ``NotFoundError`` if it is deleted.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        return session.call(partial(self._read, session))

    def write(self, session: Session, capture: Capture) -> int:
        """Save what was captured; returns the bytes.

        Raises:
            NotFoundError: it was deleted meanwhile.
            StateNotSavedError: it cannot be written; what was saved before is kept.
        """
        with self._writing:
            if session.is_closed:  # its file must not come back
                raise session_not_found()
            return self._directory.write(self._fingerprint, capture.session, capture.pages)

    def restore(self, session_id: str) -> Session:
        """Open a saved session that is not open.

        Raises:
            NotFoundError: none is saved under this id.
            ConflictError: it is open.
            SavedStateError: what is saved cannot be used; its file is set aside.
            StateNotReadError: it cannot be read now; its file stays.
            InvalidRequestError: it does not fit this server.
            MaxSessionsError: every session that memory is reserved for exists.
            ShuttingDownError: the engine has stopped.
        """
        self._sessions.check_absent(session_id)
        if not self._directory.holds(session_id):
            raise session_not_found()
        try:
            saved, fill = self._load(session_id)
            return self._sessions.resume(saved, fill).result()
        except SavedStateError as error:
            self._set_aside(session_id, error)
            raise

    def delete(self, session_id: str) -> None:
        """End a session, open or only saved, and remove what is saved of it.

        Raises:
            NotFoundError: it is neither.
            StateNotSavedError: it has ended, and its file cannot be removed.
            ShuttingDownError: the engine has stopped.
        """
        try:
            self._sessions.delete(session_id).result()
        except NotFoundError:
            was_open = False
        else:
            was_open = True
        with self._writing:
            if not self._directory.remove(session_id) and not was_open:
                raise session_not_found()

    def restore_all(self) -> None:
        """Open all that is saved, the one used last first; what cannot be restored is logged, and harms no other."""
        for session_id in self._directory.ids():
            try:
                saved, fill = self._load(session_id)
                view = self._sessions.resume_now(saved, fill).view
                logger.info("session %s is restored: %d tokens", session_id, view.num_tokens)
            except SavedStateError as error:
                self._set_aside(session_id, error)
            except RequestError as error:
                logger.warning("session %s is not restored: %s; its file stays", session_id, error)
            except Exception:
                logger.exception("session %s is not restored, and its file stays", session_id)

    def save_all(self) -> None:
        """Save every session, the one used last first; what cannot be saved is logged, and harms no other."""
        for session in sorted(self._sessions.all(), key=lambda session: session.view.last_used_at, reverse=True):
            try:
                num_bytes = self.write(session, self._read(session))
            except RequestError as error:
                logger.error("session %s: %s", session.session_id, error)
            except Exception:
                logger.exception("session %s is not saved; what was saved before is kept", session.session_id)
            else:
                logger.info("session %s is saved: %d bytes", session.session_id, num_bytes)

    def close(self) -> None:
        """Let another server use the directory."""
        self._directory.close()

    def _read(self, session: Session) -> Capture:
        page_ids = page_ids_of(session.context.table)
        pages = self._executor.read_pages(page_ids) if page_ids.size else np.empty((0, 0), np.uint8)
        return Capture(snapshot(session), pages)

    def _load(self, session_id: str) -> tuple[SavedSession, FillPages | None]:
        """What is saved of a session, checked, and what puts its keys and values into pages."""
        with self._directory.open(session_id) as reader:
            saved = reader.header.session
            self._check(reader)
            if reader.header.fingerprint.kv != self._fingerprint.kv:
                self._announce_recomputing(saved, reader.header.fingerprint.kv)
                return saved, None
            return saved, partial(self._fill, reader.read_pages())

    def _check(self, reader: StateReader) -> None:
        """Believe a file, all but its pages.

        Raises:
            SavedStateError: it is of another model, or was not written by an honest server.
            InvalidRequestError: this server lacks the stream type.
        """
        theirs, ours, saved = reader.header.fingerprint, self._fingerprint, reader.header.session
        if theirs.model != ours.model:
            raise SavedStateError("it was saved with another model")
        if theirs.tokenizer != ours.tokenizer:
            raise SavedStateError("it was saved with another tokenizer")
        check_saved(saved, vocab_size=self._vocab_size)
        num_pages = saved.context.num_pages(self._sessions.page_size)
        if theirs.kv == ours.kv and reader.header.pages.num_pages != num_pages:
            raise SavedStateError("it has other pages than its tokens take")
        stream_type = self._sessions.stream_types.get(saved.type)
        if stream_type is None:
            raise InvalidRequestError(f"this server has no stream type {saved.type!r}", code="unknown_stream_type")
        _check_entries(stream_type, (*saved.entries, *saved.waiting))

    def _fill(self, pages: Pages, page_ids: NDArray[np.int32]) -> None:
        try:
            self._executor.write_pages(page_ids, pages)
        except ValueError as error:
            raise SavedStateError(f"its pages do not fit: {error}") from None

    def _announce_recomputing(self, saved: SavedSession, kv: str) -> None:
        logger.warning(
            "session %s: its pages (%s) are not those of this server (%s); its %d tokens are computed again",
            saved.session_id,
            kv,
            self._fingerprint.kv,
            saved.context.durable_end,
        )

    def _set_aside(self, session_id: str, reason: SavedStateError) -> None:
        try:
            where = self._directory.set_aside(session_id)
        except OSError as error:
            logger.error("session %s is not restored: %s; its file stays: %s", session_id, reason, error.strerror)
        else:
            logger.error("session %s is not restored: %s; its file is now %s", session_id, reason, where)


def _check_entries(stream_type: StreamType, entries: Sequence[Mapping[str, Any]]) -> None:
    """Prove that a stream type has validated all entries."""
    for entry in entries:
        try:
            is_valid = stream_type.validate(entry) == entry
        except Exception:  # a type that meets what it would never have written may fail in any way
            is_valid = False
        if not is_valid:
            raise SavedStateError(f"an entry is none of type {stream_type.name}")
