"""What waits in the sessions' rings is rendered and tokenised here, away from the engine thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from layerscale_core.errors import ShuttingDownError
from layerscale_core.sessions.ingestion import Batch
from layerscale_core.sessions.session import Session
from layerscale_core.sessions.stream import COALESCING_S
from layerscale_core.specs.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_MAX_BATCH_ENTRIES = 256

PostBatch = Callable[[Session, Batch], None]


class BatchPreparation:
    """Makes batches of what waits, one a session at a time, in the order in which sessions had something. Any thread.

    Args:
        batch_tokens: most tokens of a batch, unless a single entry has more.
        post: hands a batch to the engine thread; raises ``ShuttingDownError`` once there is none.
    """

    def __init__(self, tokenizer: Tokenizer, batch_tokens: int, post: PostBatch) -> None:
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens
        self._post = post
        self._changed = threading.Condition()
        self._ready: dict[str, Session] = {}  # sessions with entries that no batch was made of, in order of arrival
        self._unsettled: set[str] = set()  # sessions with a batch that is not settled
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. Without it whoever calls ``prepare`` is that thread."""
        assert self._thread is None, "started twice"
        self._thread = threading.Thread(target=self._run, name="layerscale-streams", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what waits stays in the rings. Idempotent."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def announce(self, session: Session) -> None:
        """Entries wait in a session's ring."""
        with self._changed:
            self._ready[session.session_id] = session
            self._changed.notify_all()

    def settled(self, session: Session) -> None:
        """A session's batch is done; the next one may be made."""
        with self._changed:
            self._unsettled.discard(session.session_id)
            if session.ring.counts.queue_size and not session.is_closed:
                self._ready[session.session_id] = session
            self._changed.notify_all()

    def forget(self, session: Session) -> None:
        """A session is closed."""
        with self._changed:
            self._ready.pop(session.session_id, None)
            self._unsettled.discard(session.session_id)

    def prepare(self) -> bool:
        """Make a batch of what waits in one session; returns whether there was one to make."""
        with self._changed:
            session = next((each for key, each in self._ready.items() if key not in self._unsettled), None)
            if session is None:
                return False
            del self._ready[session.session_id]
            self._unsettled.add(session.session_id)
        token_ids = self._tokenise(session)
        batch = Batch(tuple(session.ring.take(len(token_ids))), tuple(token_ids))
        if not batch.entries:
            self.settled(session)
            return True
        try:
            self._post(session, batch)
        except ShuttingDownError:
            session.ring.put_back(batch.entries)
        return True

    def _tokenise(self, session: Session) -> list[tuple[int, ...]]:
        """The tokens of the session's oldest entries, up to a batch's worth, or to one that cannot be read."""
        token_ids: list[tuple[int, ...]] = []
        num_tokens = 0
        for entry in session.ring.peek(_MAX_BATCH_ENTRIES):
            try:
                ids = tuple(self._tokenizer.encode(session.stream_type.render(entry) + "\n", add_special=False))
            except Exception:  # a plugin's, or of a tokenizer that came with the model
                if not token_ids:
                    self._lose_oldest(session)
                break
            num_tokens += len(ids)
            if token_ids and num_tokens > self._batch_tokens:
                break
            token_ids.append(ids)
        return token_ids

    def _lose_oldest(self, session: Session) -> None:
        """Give up an entry that cannot be read: those behind it, and other sessions, go on. Called in the handler."""
        logger.exception(
            "session %s: an entry cannot be read by its stream type %s, or by the tokenizer, and is lost",
            session.session_id,
            session.stream_type.name,
        )
        session.ring.settle(len(session.ring.take(1)), 0, failed=True)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_stopping or self._ready.keys() - self._unsettled)
                if self._is_stopping:
                    return
                self._changed.wait_for(lambda: self._is_stopping, COALESCING_S)
            self.prepare()
