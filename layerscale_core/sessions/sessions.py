"""All sessions of a server: made, found and deleted here."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from layerscale_core.engine import Engine
from layerscale_core.errors import ContextLengthError, InvalidRequestError, MaxSessionsError
from layerscale_core.memory_plan import pages_of_session
from layerscale_core.sessions.actor import session_not_found
from layerscale_core.sessions.calls import fulfil
from layerscale_core.sessions.context import SessionContext
from layerscale_core.sessions.flash import DEFAULT_ANSWER_TOKENS
from layerscale_core.sessions.ingestion import Batch
from layerscale_core.sessions.parts import SessionParts
from layerscale_core.sessions.preparation import BatchPreparation
from layerscale_core.sessions.session import Session
from layerscale_core.sessions.stream import Entry, EntryRing, PushAck, StreamTotals
from layerscale_core.sessions.window import EntryWindow
from layerscale_core.specs.executor import Executor
from layerscale_core.specs.kv_pool import KVPool
from layerscale_core.specs.stream_type import StreamType
from layerscale_core.specs.tokenizer import Tokenizer


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
        self._preparation = BatchPreparation(tokenizer, limits.batch_tokens, self._post_batch)
        self._past = StreamTotals()
        self._past_lock = threading.Lock()

    def start(self) -> None:
        """Start the thread that prepares batches."""
        self._preparation.start()

    def stop(self) -> None:
        """End the thread; what waits stays in the rings. Idempotent."""
        self._preparation.stop()

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
        with self._past_lock:
            totals = self._past
            for session in self.all():
                totals = totals.plus(session.ring.counts, session.num_evaluations)
        return totals

    def create(self, new: NewSession) -> Future[Session]:
        """Make a session; fails with ``MaxSessionsError``, ``InvalidRequestError`` or ``ConflictError``.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        created: Future[Session] = Future()
        self._engine.post(partial(fulfil, created, partial(self._create, new)))
        return created

    def delete(self, session_id: str) -> Future[None]:
        """End a session; done once its memory is free again. Fails with ``NotFoundError``.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        deleted: Future[None] = Future()
        self._engine.post(partial(fulfil, deleted, partial(self._delete, session_id)))
        return deleted

    def push(self, session: Session, entries: Sequence[Entry]) -> PushAck:
        """Enqueue validated entries; never waits for the model."""
        ack = session.ring.push(entries)
        if ack.num_pushed:
            self._preparation.announce(session)
        return ack

    def prepare(self) -> bool:
        """Make a batch of what waits in one session; returns whether there was one to make."""
        return self._preparation.prepare()

    # Engine thread

    def _create(self, new: NewSession) -> Session:
        if new.type not in self.stream_types:
            raise InvalidRequestError(f"type must be one of {', '.join(self.stream_types)}", param="type")
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
            session.actor.close()
            raise
        self._sessions[session.session_id] = session
        session.actor.begin(new.prompt_ids)
        return session

    def _make_session(self, new: NewSession, context: SessionContext) -> Session:
        parts = SessionParts(
            session_id=self._new_id(),
            engine=self._engine,
            tokenizer=self._tokenizer,
            stream_type=self.stream_types[new.type],
            context=context,
            ring=EntryRing(self.limits.ring_capacity),
            window=EntryWindow(new.window_size),
            separator=self._separator,
            prefill_chunk=self.limits.batch_tokens,
            has_settled=self._has_settled,
        )
        return Session(parts)

    def _new_id(self) -> str:
        """An id that no session has."""
        ids = (f"sess_{secrets.token_hex(6)}" for _ in itertools.count())
        return next(each for each in ids if each not in self._sessions)

    def _delete(self, session_id: str) -> None:
        session = self.get(session_id)
        with self._past_lock:
            del self._sessions[session_id]
            self._past = self._past.plus(session.ring.counts, session.num_evaluations)
        session.actor.close()
        self._preparation.forget(session)

    def _post_batch(self, session: Session, batch: Batch) -> None:
        self._engine.post(partial(session.actor.offer, batch))

    def _has_settled(self, session_id: str) -> None:
        if (session := self._sessions.get(session_id)) is not None:
            self._preparation.settled(session)
