"""All sessions of a server: made, found and deleted here; what arrives for them is written as tokens here."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from layerscale_core.engine import Engine
from layerscale_core.errors import ContextLengthError, MaxSessionsError, ShuttingDownError
from layerscale_core.memory_plan import pages_of_session
from layerscale_core.sessions.context import SessionContext
from layerscale_core.sessions.flash import DEFAULT_ANSWER_TOKENS
from layerscale_core.sessions.session import Batch, Session, SessionParts, session_not_found
from layerscale_core.sessions.stream import COALESCING_S, Entry, EntryRing, PushAck, StreamTotals
from layerscale_core.specs.executor import Executor
from layerscale_core.specs.kv_pool import KVPool
from layerscale_core.specs.stream_type import StreamType
from layerscale_core.specs.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_MAX_BATCH_ENTRIES = 256


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What sessions may be.

    Attributes:
        max_sessions: that memory is reserved for.
        max_context_len: tokens of one session's context.
        ring_capacity: entries that wait in one session.
        batch_tokens: most tokens of a batch of data, unless a single entry has more. A question waits for no more.
    """

    max_sessions: int
    max_context_len: int
    ring_capacity: int = 16_384
    batch_tokens: int = 512


@dataclass(frozen=True, slots=True)
class NewFlashQuery:
    """A question to register with a session from its beginning."""

    query: str
    token_ids: tuple[int, ...]
    max_tokens: int = DEFAULT_ANSWER_TOKENS


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session to be made.

    Attributes:
        type: name of a stream type.
        prompt_ids: what its context begins with.
        context_len: most tokens; None = as many as the server allows, which more are cut to.
        window_size: most entries.
    """

    type: str
    prompt_ids: tuple[int, ...] = ()
    context_len: int | None = None
    window_size: int = 10_000
    flash: tuple[NewFlashQuery, ...] = ()


class Sessions:
    """The sessions of one engine.

    Threads: any, unless a method says otherwise. ``start`` makes a thread that renders and tokenises what waits in the
    rings; without it whoever calls ``prepare`` is that thread, and simulations run in virtual time.
    """

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        pool: KVPool,
        tokenizer: Tokenizer,
        *,
        stream_types: Mapping[str, StreamType],
        limits: SessionLimits,
    ) -> None:
        self.limits = limits
        self.stream_types = stream_types
        self._engine = engine
        self._executor = executor
        self._pool = pool
        self._tokenizer = tokenizer
        self._separator = tuple(tokenizer.encode("\n", add_special=False))
        self._sessions: dict[str, Session] = {}
        self._changed = threading.Condition()
        self._ready: dict[str, Session] = {}  # sessions with entries that no batch was made of, in order of arrival
        self._preparing: set[str] = set()  # sessions with a batch that is not settled
        self._past = StreamTotals()
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that prepares batches."""
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

    def get(self, session_id: str) -> Session:
        """A session.

        Raises:
            NotFoundError: there is none with this id.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise session_not_found()
        return session

    def all(self) -> list[Session]:
        """Every session, in order of creation."""
        return list(self._sessions.values())

    def totals(self) -> StreamTotals:
        """The counts of all sessions there are and were."""
        with self._changed:
            totals = self._past
            for session in self.all():
                totals = totals.plus(session.ring.counts, session.num_evaluations)
        return totals

    def create(self, new: NewSession) -> Future[Session]:
        """Make a session; fails with ``MaxSessionsError``, ``InvalidRequestError`` or ``ConflictError``.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        return self._on_engine_thread(partial(self._create, new))

    def delete(self, session_id: str) -> Future[None]:
        """End a session; done once its memory is free again. Fails with ``NotFoundError``.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        deleted: Future[None] = Future()

        def delete() -> None:
            with self._changed:
                session = self._sessions.pop(session_id, None)
                if session is not None:
                    self._past = self._past.plus(session.ring.counts, session.num_evaluations)
            if session is None:
                deleted.set_exception(session_not_found())
            else:
                session.close(lambda: deleted.set_result(None))

        self._engine.post(delete)
        return deleted

    def push(self, session: Session, entries: Sequence[Entry]) -> PushAck:
        """Enqueue validated entries; never waits for the model."""
        ack = session.ring.push(entries)
        if ack.num_pushed:
            with self._changed:
                self._ready[session.session_id] = session
                self._changed.notify_all()
        return ack

    # The thread that prepares

    def prepare(self) -> bool:
        """Make a batch of what waits in one session; returns whether there was any."""
        with self._changed:
            session = next((each for key, each in self._ready.items() if key not in self._preparing), None)
            if session is None:
                return False
            del self._ready[session.session_id]
            self._preparing.add(session.session_id)
        batch = self._make_batch(session)
        if batch is None:
            self._settled(session)
            return True
        try:
            self._engine.post(partial(self._offer, session, batch))
        except ShuttingDownError:
            session.ring.put_back(batch.entries)
            return False
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_stopping or self._ready.keys() - self._preparing)
                if self._is_stopping:
                    return
                self._changed.wait_for(lambda: self._is_stopping, COALESCING_S)
            self.prepare()

    def _make_batch(self, session: Session) -> Batch | None:
        """The session's oldest entries as tokens, up to a step's worth; None if none wait."""
        entries = session.ring.take(_MAX_BATCH_ENTRIES)
        token_ids: list[tuple[int, ...]] = []
        num_tokens = 0
        for entry in entries:
            line = session.stream_type.render(entry) + "\n"
            ids = tuple(self._tokenizer.encode(line, add_special=False))
            if token_ids and num_tokens + len(ids) > self.limits.batch_tokens:
                break
            token_ids.append(ids)
            num_tokens += len(ids)
        session.ring.put_back(entries[len(token_ids) :])
        return Batch(tuple(entries[: len(token_ids)]), tuple(token_ids)) if token_ids else None

    # Engine thread

    def _create(self, new: NewSession) -> Session:
        wanted = self.limits.max_context_len if new.context_len is None else new.context_len
        context_len = min(wanted, self.limits.max_context_len)
        if len(new.prompt_ids) >= context_len:
            raise ContextLengthError(len(new.prompt_ids), context_len, param="prompt")
        num_pages = pages_of_session(context_len, self._pool.page_size)
        if len(self._sessions) >= self.limits.max_sessions or not self._pool.can_reserve(num_pages):
            raise MaxSessionsError(self.limits.max_sessions)
        session = self._make_session(new, SessionContext(self._pool, self._executor, context_len))
        try:
            for query in new.flash:
                session.flash.register(query.query, query.max_tokens, query.token_ids)
        except Exception:
            session.close(lambda: None)
            raise
        self._sessions[session.session_id] = session
        session.begin(new.prompt_ids)
        return session

    def _make_session(self, new: NewSession, context: SessionContext) -> Session:
        parts = SessionParts(
            engine=self._engine,
            pool=self._pool,
            tokenizer=self._tokenizer,
            stream_type=self.stream_types[new.type],
            separator=self._separator,
            prefill_chunk=self.limits.batch_tokens,
            has_settled=self._settled,
        )
        ring = EntryRing(self.limits.ring_capacity)
        return Session(f"sess_{secrets.token_hex(6)}", parts, context, new.window_size, ring)

    def _offer(self, session: Session, batch: Batch) -> None:
        session.offer(batch)
        if session.is_closed:
            self._settled(session)

    def _settled(self, session: Session) -> None:
        """A session's batch is done; the next one may be made."""
        with self._changed:
            self._preparing.discard(session.session_id)
            if session.ring.counts.queue_size and not session.is_closed:
                self._ready[session.session_id] = session
            self._changed.notify_all()

    def _on_engine_thread(self, function: Callable[[], Session]) -> Future[Session]:
        future: Future[Session] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self._engine.post(run)
        return future
