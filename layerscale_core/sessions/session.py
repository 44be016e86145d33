"""One session, as the rest of the server sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from layerscale_core.errors import InvalidRequestError
from layerscale_core.sessions.actor import SessionActor, session_not_found
from layerscale_core.sessions.calls import Call, post
from layerscale_core.sessions.events import Connected, Subscriber
from layerscale_core.sessions.flash import FlashQuery, check_question
from layerscale_core.sessions.parts import SessionParts
from layerscale_core.sessions.stream import Entry
from layerscale_core.sessions.turns import Turn
from layerscale_core.sessions.view import SessionView

T = TypeVar("T")


class Session:
    """A session's requests are served one after the other, in order; data that arrives is taken in between them.

    Threads: any, but for ``actor`` and ``context``, which are the engine thread's. ``view``, the flash board, the
    window and the ring's counts are replaced as a whole and can be read at any time; everything else is asked for.
    """

    def __init__(self, parts: SessionParts) -> None:
        self.session_id = parts.session_id
        self.label = parts.label
        self.stream_type = parts.stream_type
        self.window_size = parts.window.max_entries
        self.ring = parts.ring
        self.window = parts.window
        self.flash = parts.flash
        self.subscribers = parts.subscribers
        self.context = parts.context
        self.actor = SessionActor(parts)
        self._engine = parts.engine

    def submit(self, turn: Turn) -> None:
        """Ask; the turn's events, one of them terminal and that the last, go to its sink on the engine thread.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        self._engine.post(partial(self.actor.enqueue, turn))

    def cancel(self, request_id: str) -> None:
        """End a turn, running or waiting; others and unknown ones are not concerned.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        self._engine.post(partial(self.actor.cancel, request_id))

    def call(self, function: Callable[[], T], *, needs_prefill: bool = False) -> Future[T]:
        """Have something done on the engine thread, in its turn among the session's requests.

        Args:
            needs_prefill: only once nothing is pending.

        Raises:
            ShuttingDownError: the engine has stopped.
        """

        def publishing() -> T:
            result = function()
            self.actor.publish_view()
            return result

        call = Call(publishing, needs_prefill=needs_prefill)
        self._engine.post(partial(self.actor.enqueue, call))
        return call.future

    def post(self, function: Callable[[], T]) -> Future[T]:
        """Have something done on the engine thread before the next step, whatever the session does.

        Raises:
            ShuttingDownError: the engine has stopped.
        """

        def advancing() -> T:
            if self.is_closed:
                raise session_not_found()
            result = function()
            self.actor.advance()
            return result

        return post(self._engine, advancing)

    def append(self, token_ids: Sequence[int]) -> Future[SessionView]:
        """Add durable tokens; fails with ``ContextLengthError`` if they do not fit, and adds nothing then."""
        return self.call(partial(self._append, token_ids))

    def mark_prefix(self) -> Future[SessionView]:
        """Freeze what is held; fails with ``InvalidRequestError`` once there is data."""
        return self.call(self._mark_prefix, needs_prefill=True)

    def register_flash(self, query: str, max_tokens: int, token_ids: tuple[int, ...]) -> Future[FlashQuery]:
        """Register a question; fails as ``FlashBoard.register``, and with ``ContextLengthError`` if it is too long."""
        return self.post(partial(self._register_flash, query, max_tokens, token_ids))

    def remove_flash(self, query_id: int) -> Future[int]:
        """Forget a question; returns how many are left. Fails as ``FlashBoard.remove``."""
        return self.post(partial(self._remove_flash, query_id))

    def subscribe(self, subscriber: Subscriber) -> Future[None]:
        """Tell a subscriber where the session stands, then every stored answer, then all that happens."""
        return self.post(partial(self._subscribe, subscriber))

    def unsubscribe(self, subscriber: Subscriber) -> Future[None]:
        """Tell a subscriber nothing more."""
        return self.post(partial(self.subscribers.remove, subscriber))

    def describe(self) -> Future[tuple[SessionView, list[int]]]:
        """The view and all tokens held, at one moment."""
        return self.post(lambda: (self.actor.make_view(), list(self.context.tokens)))

    def statistics(self) -> Mapping[str, Any]:
        """The window's statistics as the stream type defines them, and how many entries it has."""
        entries = self.entries()
        return {"count": len(entries), **self.stream_type.statistics(entries)}

    def entries(self) -> list[Entry]:
        """The window's entries, oldest first."""
        return self.window.entries()

    def fresh_answer(self, text: str) -> FlashQuery | None:
        """The registered query with this text, if its answer holds for all the session was given."""
        query = self.flash.find(text)
        if query is None or query.answer is None or query.answer.revision != self.view.revision:
            return None
        return query if self.ring.counts.is_settled else None

    @property
    def view(self) -> SessionView:
        """Where the session stands."""
        return self.actor.view

    @property
    def is_closed(self) -> bool:
        """Whether it is deleted, or about to be."""
        return self.actor.is_closed

    @property
    def data_version(self) -> int:
        """Counts the batches of data taken in."""
        return self.actor.ingestion.data_version

    @property
    def num_evaluations(self) -> int:
        """Answers of Flash Queries so far."""
        return self.actor.evaluations.num_finished

    def _append(self, token_ids: Sequence[int]) -> SessionView:
        self.context.append(token_ids)
        return self.actor.make_view()

    def _mark_prefix(self) -> SessionView:
        if self.context.has_data:
            raise InvalidRequestError("mark_prefix must come before the first data", code="data_already_ingested")
        self.context.mark_prefix()
        return self.actor.make_view()

    def _register_flash(self, query: str, max_tokens: int, token_ids: tuple[int, ...]) -> FlashQuery:
        check_question(token_ids, self.context.data_begin, self.context.context_len, param="query")
        return self.flash.register(query, max_tokens, token_ids)

    def _remove_flash(self, query_id: int) -> int:
        num_left = self.flash.remove(query_id)
        self.actor.evaluations.end(query_id)
        return num_left

    def _subscribe(self, subscriber: Subscriber) -> None:
        is_streaming, num_queries = self.ring.counts.total_enqueued > 0, len(self.flash.queries)
        subscriber(Connected(self.session_id, self.data_version, is_streaming, num_queries))
        for query in self.flash.queries:
            if query.answer is not None:
                subscriber(query.ready_event())
        self.subscribers.add(subscriber)
