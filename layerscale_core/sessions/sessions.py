"""All sessions of a server: made, found and deleted here."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from layerscale_core.engine import Engine
from layerscale_core.errors import ConflictError, ContextLengthError, InvalidRequestError, MaxSessionsError
from layerscale_core.memory_plan import pages_of_session
from layerscale_core.sessions.actor import session_not_found
from layerscale_core.sessions.calls import post
from layerscale_core.sessions.context import SessionContext
from layerscale_core.sessions.ingestion import Batch
from layerscale_core.sessions.limits import SessionLimits
from layerscale_core.sessions.new_session import NewSession
from layerscale_core.sessions.parts import SessionParts
from layerscale_core.sessions.preparation import BatchPreparation
from layerscale_core.sessions.saved_state import SavedContext, SavedSession
from layerscale_core.sessions.session import Session
from layerscale_core.sessions.snapshot import FillPages, page_ids_of, rebuild, resume, snapshot
from layerscale_core.sessions.stream import Entry, EntryRing, PushAck, StreamTotals
from layerscale_core.sessions.window import EntryWindow
from layerscale_core.specs.executor import Executor
from layerscale_core.specs.kv_pool import KVPool
from layerscale_core.specs.stream_type import StreamType
from layerscale_core.specs.tokenizer import Tokenizer


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
        return sorted(self._sessions.values(), key=lambda session: session.view.created_at)

    def totals(self) -> StreamTotals:
        """The counts of all sessions there are and were."""
        with self._past_lock:
            totals = self._past
            for session in self.all():
                totals = totals.plus(session.ring.counts, session.num_evaluations)
        return totals

    def check_absent(self, session_id: str) -> None:
        """See that no open session has an id.

        Raises:
            ConflictError: one has.
        """
        if session_id in self._sessions:
            raise ConflictError("the session is open", code="session_is_open")

    @property
    def page_size(self) -> int:
        """Tokens per page of the KV pool."""
        return self._pool.page_size

    def create(self, new: NewSession) -> Future[Session]:
        """Make a session; fails with ``MaxSessionsError``, ``InvalidRequestError`` or ``ConflictError``.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        return post(self._engine, partial(self.create_now, new))

    def resume(self, saved: SavedSession, fill: FillPages | None) -> Future[Session]:
        """Make a session that goes on where another was left, which this server's stream types know.

        Fails with ``ConflictError``, ``MaxSessionsError``, or ``InvalidRequestError`` if it does not fit the context.

        Args:
            fill: puts what was computed into the pages; None = compute it again.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        return post(self._engine, partial(self.resume_now, saved, fill))

    def fork(self, session_id: str) -> Future[Session]:
        """Make a copy of a session, which goes on by itself, with whatever waits there. Fails as ``resume``.

        Raises:
            NotFoundError: there is none with this id.
            ShuttingDownError: the engine has stopped.
        """
        source = self.get(session_id)
        return source.call(partial(self._fork, source))

    def delete(self, session_id: str) -> Future[None]:
        """End a session; done once its memory is free again. Fails with ``NotFoundError``.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        return post(self._engine, partial(self.delete_now, session_id))

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

    def create_now(self, new: NewSession) -> Session:
        """As ``create``, at once."""
        if new.type not in self.stream_types:
            raise InvalidRequestError(f"type must be one of {', '.join(self.stream_types)}", param="type")
        wanted = self.limits.max_context_len if new.context_len is None else new.context_len
        context_len = min(wanted, self.limits.max_context_len)
        if len(new.prompt_ids) >= context_len:
            raise ContextLengthError(len(new.prompt_ids), context_len, param="prompt")
        context = self._make_context(context_len)
        session = self._make_session(self._new_id(), new.type, new.window_size, context, new.label)
        try:
            for query in new.flash:
                session.flash.register(query.query, query.max_tokens, query.token_ids)
        except Exception:
            session.actor.close()
            raise
        self._sessions[session.session_id] = session
        session.actor.begin(new.prompt_ids)
        return session

    def resume_now(self, saved: SavedSession, fill: FillPages | None) -> Session:
        """As ``resume``, at once. Engine thread, or before it starts."""
        self.check_absent(saved.session_id)
        context = self._make_context(self._context_len_for(saved.context))
        try:
            rebuild(context, saved.context, self._pool, fill)
        except BaseException:
            context.release()
            raise
        session = self._make_session(saved.session_id, saved.type, saved.window_size, context, saved.label)
        self._sessions[session.session_id] = session
        resume(session, saved)
        if saved.waiting:
            self._preparation.announce(session)
        return session

    def _fork(self, source: Session) -> Session:
        now = int(time.time())
        saved = replace(snapshot(source), session_id=self._new_id(), label="", created_at=now, last_used_at=now)
        return self.resume_now(saved, partial(self._executor.copy_pages, page_ids_of(source.context.table)))

    def _context_len_for(self, saved: SavedContext) -> int:
        """As many tokens as the session had, or as this server has at most if what it holds fits there."""
        context_len = min(saved.context_len, self.limits.max_context_len)
        num_positions = len(saved.tokens) + saved.gap
        num_pages = saved.num_pages(self.page_size)
        if num_positions > context_len or num_pages > pages_of_session(context_len, self.page_size):
            raise InvalidRequestError(
                f"the session takes {num_positions} tokens of context, and this server has {context_len}",
                code="session_too_long",
            )
        return context_len

    def _make_context(self, context_len: int) -> SessionContext:
        num_pages = pages_of_session(context_len, self.page_size)
        if len(self._sessions) >= self.limits.max_sessions or not self._pool.can_reserve(num_pages):
            raise MaxSessionsError(self.limits.max_sessions)
        return SessionContext(self._pool, self._executor, context_len)

    def _make_session(
        self, session_id: str, type_name: str, window_size: int, context: SessionContext, label: str
    ) -> Session:
        parts = SessionParts(
            session_id=session_id,
            label=label,
            engine=self._engine,
            tokenizer=self._tokenizer,
            stream_type=self.stream_types[type_name],
            context=context,
            ring=EntryRing(self.limits.ring_capacity),
            window=EntryWindow(window_size),
            separator=self._separator,
            prefill_chunk=self.limits.batch_tokens,
            has_settled=self._has_settled,
            max_waiting=self.limits.max_waiting,
        )
        return Session(parts)

    def _new_id(self) -> str:
        """An id that no session has."""
        ids = (f"sess_{secrets.token_hex(6)}" for _ in itertools.count())
        return next(each for each in ids if each not in self._sessions)

    def delete_now(self, session_id: str) -> None:
        """As ``delete``, at once."""
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
