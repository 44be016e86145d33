"""One session: what is asked of it and what arrives for it, one thing after the other."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from layerscale_core.engine import Engine, SamplingParams
from layerscale_core.engine.request import (
    Cancelled,
    Event,
    EventSink,
    Failed,
    Finished,
    Request,
    TerminalEvent,
    TokensGenerated,
)
from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.errors import ContextLengthError, InvalidRequestError, NotFoundError, RequestError
from layerscale_core.sessions.context import SessionContext, tail_reserve
from layerscale_core.sessions.events import Connected, DataUpdated, SessionClosed, Subscriber, Subscribers
from layerscale_core.sessions.flash import Evaluation, FlashAnswer, FlashBoard, FlashQuery
from layerscale_core.sessions.stream import Entry, EntryRing
from layerscale_core.sessions.turns import Turn, TurnFinished
from layerscale_core.sessions.view import SessionView
from layerscale_core.sessions.window import Eviction, plan_eviction
from layerscale_core.specs.kv_pool import KVPool
from layerscale_core.specs.scheduler import Priority
from layerscale_core.specs.stream_type import StreamType
from layerscale_core.specs.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_TURNS_BEFORE_BATCH = 4
"""A batch of data lets so many questions go first."""

_MAX_ATTEMPTS = 3
"""How often background work is tried before it is given up."""

_MAX_VERSIONS_BEHIND = 8
"""Flash Queries wait for a quiet moment of the stream until their answers are so many versions behind."""


def session_not_found() -> NotFoundError:
    """The error of every request to a session that is not there, or not any more."""
    return NotFoundError("there is no such session", code="session_not_found")


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries ready to be computed.

    Attributes:
        token_ids: of each entry.
    """

    entries: tuple[Entry, ...]
    token_ids: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What a session is made of and with.

    Attributes:
        separator: tokens of a line end.
        prefill_chunk: most tokens that background work computes before a question may go first.
        has_settled: told on the engine thread that a batch is done and the next may come.
    """

    engine: Engine
    pool: KVPool
    tokenizer: Tokenizer
    stream_type: StreamType
    separator: tuple[int, ...]
    prefill_chunk: int
    has_settled: Callable[[Session], None]
    wall_clock: Callable[[], float] = time.time


@dataclass(eq=False, slots=True)
class _Call:
    """Something to do on the engine thread between two turns.

    Attributes:
        needs_prefill: only once nothing is pending.
    """

    run: Callable[[], None]
    fail: Callable[[RequestError], None]
    needs_prefill: bool


_Operation = Turn | _Call


class Session:
    """A session's requests are served one after the other, in order; data that arrives is taken in between them.

    The engine thread owns everything but the ring and what is said to be for any thread. Others read ``view``, the
    flash board and the ring's counts, which are replaced as a whole, and ask for the rest.
    """

    def __init__(
        self, session_id: str, parts: SessionParts, context: SessionContext, window_size: int, ring: EntryRing
    ) -> None:
        self.session_id = session_id
        self.flash = FlashBoard()
        self.ring = ring
        self.stream_type = parts.stream_type
        self.window_size = window_size
        self.context = context
        self.data_version = 0
        self.revision = 0
        self.created_at = self.last_used_at = int(parts.wall_clock())
        self.subscribers = Subscribers()
        self._parts = parts
        self._entries: deque[Entry] = deque()
        self._entries_lock = threading.Lock()
        self._operations: deque[_Operation] = deque()
        self._running: Turn | None = None
        self._work: LiveSequence | None = None
        self._is_starting = False
        self._batch: Batch | None = None
        self._num_turns_before_batch = 0
        self._num_failures = 0
        self._evaluations: dict[int, Evaluation] = {}
        self._dropped: set[int] = set()
        self._gave_up: dict[int, int] = {}  # the revision at which a query could not be evaluated
        self.num_evaluations = 0
        self._numbers = itertools.count(1)
        self._is_closed = False
        self._is_released = False
        self._when_closed: list[Callable[[], None]] = []
        self.view = self._make_view()

    # Any thread

    def submit(self, turn: Turn) -> None:
        """Ask; the turn's events, one of them terminal and that the last, go to its sink on the engine thread.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        self._parts.engine.post(partial(self._enqueue, turn))

    def cancel(self, request_id: str) -> None:
        """End a turn, running or waiting; others and unknown ones are not concerned."""
        self._parts.engine.post(partial(self._cancel, request_id))

    def call(self, function: Callable[[], T], *, needs_prefill: bool = False) -> Future[T]:
        """Have something done on the engine thread, in its turn among the session's requests.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        call = _Call(run, future.set_exception, needs_prefill)
        self._parts.engine.post(partial(self._enqueue, call))
        return future

    def post(self, function: Callable[[], T]) -> Future[T]:
        """Have something done on the engine thread before the next step, whatever the session does.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                if self._is_closed:
                    raise session_not_found()
                future.set_result(function())
                self._advance()
            except Exception as error:
                future.set_exception(error)

        self._parts.engine.post(run)
        return future

    def append(self, token_ids: Sequence[int]) -> Future[SessionView]:
        """Add durable tokens; fails with ``ContextLengthError`` if they do not fit, and adds nothing then."""
        return self.call(partial(self._append, token_ids))

    def mark_prefix(self) -> Future[SessionView]:
        """Freeze what is held; fails with ``InvalidRequestError`` once there is data."""
        return self.call(self._mark_prefix, needs_prefill=True)

    def register_flash(self, query: str, max_tokens: int, token_ids: tuple[int, ...]) -> Future[FlashQuery]:
        """Register a question; fails as ``FlashBoard.register``."""
        return self.post(partial(self.flash.register, query, max_tokens, token_ids))

    def remove_flash(self, query_id: int) -> Future[int]:
        """Forget a question; fails as ``FlashBoard.remove``."""
        return self.post(partial(self._remove_flash, query_id))

    def subscribe(self, subscriber: Subscriber) -> Future[None]:
        """Tell a subscriber where the session stands, then every stored answer, then all that happens."""
        return self.post(partial(self._subscribe, subscriber))

    def unsubscribe(self, subscriber: Subscriber) -> Future[None]:
        """Tell a subscriber nothing more."""
        return self.post(partial(self.subscribers.remove, subscriber))

    def describe(self) -> Future[tuple[SessionView, list[int]]]:
        """The view and all tokens held, at one moment."""
        return self.post(lambda: (self._make_view(), list(self.context.tokens)))

    def statistics(self) -> Mapping[str, Any]:
        """The window's statistics as the stream type defines them, and how many entries it has."""
        entries = self.entries()
        return {"count": len(entries), **self.stream_type.statistics(entries)}

    def entries(self) -> list[Entry]:
        """The window's entries, oldest first."""
        with self._entries_lock:
            return list(self._entries)

    def fresh_answer(self, text: str) -> FlashQuery | None:
        """The registered query with this text, if its answer holds for all the session was given."""
        query = self.flash.find(text)
        is_fresh = (
            query is not None
            and query.answer is not None
            and query.answer.revision == self.view.revision
            and self.ring.counts.is_settled
        )
        return query if is_fresh else None

    # Engine thread

    def begin(self, token_ids: Sequence[int]) -> None:
        """Start with a prompt."""
        self.context.append(token_ids)
        self._advance()

    def offer(self, batch: Batch) -> None:
        """Take a batch in as soon as nothing else runs; the one before it is settled."""
        assert self._batch is None
        if not self._is_closed:
            self._batch = batch
            self._num_failures = 0
            self._advance()

    def close(self, when_closed: Callable[[], None]) -> None:
        """End everything; ``when_closed`` is called once the session's pages are given back."""
        self._when_closed.append(when_closed)
        if not self._is_closed:
            self._is_closed = True
            self.subscribers.tell(SessionClosed())
            operations, self._operations = self._operations, deque()
            for operation in operations:
                self._fail(operation, session_not_found())
            self._end_evaluations()
            if self._work is not None:
                self._parts.engine.end_resident(self._work)
        self._release_if_quiet()

    @property
    def is_closed(self) -> bool:
        """Whether it is deleted, or about to be."""
        return self._is_closed

    # Engine thread: operations

    def _enqueue(self, operation: _Operation) -> None:
        if self._is_closed:
            self._fail(operation, session_not_found())
            return
        self._operations.append(operation)
        self.last_used_at = int(self._parts.wall_clock())
        self._num_failures = 0
        if self._work is not None:
            self._work.priority = Priority.INTERACTIVE  # somebody waits for it now
        self._advance()

    def _cancel(self, request_id: str) -> None:
        if self._running is not None and self._running.request_id == request_id:
            self._parts.engine.cancel(request_id)
            return
        for operation in self._operations:
            if isinstance(operation, Turn) and operation.request_id == request_id:
                self._operations.remove(operation)
                operation.sink(Cancelled())
                break
        self._publish_view()

    def _append(self, token_ids: Sequence[int]) -> SessionView:
        held = self.context.durable_end if self.context.has_data else len(self.context.tokens)
        if held + len(token_ids) > self.context.context_len:
            raise ContextLengthError(held + len(token_ids), self.context.context_len, param="text")
        if token_ids:
            self._make_positions(len(token_ids))
            self.context.append(token_ids)
            self._change_revision()
        return self._make_view()

    def _mark_prefix(self) -> SessionView:
        if self.context.has_data:
            raise InvalidRequestError("mark_prefix must come before the first data", code="data_already_ingested")
        self.context.mark_prefix()
        return self._make_view()

    def _remove_flash(self, query_id: int) -> int:
        num_left = self.flash.remove(query_id)
        if (evaluation := self._evaluations.get(query_id)) is not None:
            self._end_evaluation(evaluation)
        return num_left

    def _subscribe(self, subscriber: Subscriber) -> None:
        subscriber(
            Connected(
                self.session_id,
                self.data_version,
                self.ring.counts.total_enqueued > 0,
                len(self.flash.queries),
            )
        )
        for query in self.flash.queries:
            if query.answer is not None:
                subscriber(query.ready_event())
        self.subscribers.add(subscriber)

    def _fail(self, operation: _Operation, error: RequestError) -> None:
        if isinstance(operation, Turn):
            operation.sink(Failed(error))
        else:
            operation.fail(error)

    # Engine thread: what is next

    def _advance(self) -> None:
        """Start what is next, until something runs or there is nothing."""
        if self._is_starting:
            return  # called by an event of what is being started
        self._is_starting = True
        try:
            while self._work is None and not self._is_closed and self._start_next():
                pass
        finally:
            self._is_starting = False
        if not self._is_closed:
            self._evaluate_flash()
        self._publish_view()
        self._release_if_quiet()

    def _start_next(self) -> bool:
        """Start or do one thing; returns whether there was one."""
        is_overdue = self._num_turns_before_batch >= _MAX_TURNS_BEFORE_BATCH
        if self._batch is not None and (is_overdue or not self._operations):
            return self._start_batch(self._batch)
        if self._operations:
            return self._start_operation(self._operations[0])
        return self.context.num_pending > 0 and self._num_failures < _MAX_ATTEMPTS and self._prefill()

    def _start_operation(self, operation: _Operation) -> bool:
        if isinstance(operation, _Call) and operation.needs_prefill and self.context.num_pending:
            return self._prefill(operation)
        self._operations.popleft()
        if isinstance(operation, _Call):
            operation.run()
        else:
            self._start_turn(operation)
        return True

    def _run(
        self, num_tokens: int, request_id: str, sampling: SamplingParams, priority: Priority, sink: EventSink
    ) -> None:
        """Compute the next tokens of the context, and as many new ones as ``sampling`` wants."""
        self._make_pages(num_tokens + sampling.max_tokens)
        first, context = self.context.num_computed, self.context
        token_ids = tuple(context.tokens[first : first + num_tokens])
        request = Request(request_id, token_ids, sampling, priority)
        self._work = self._parts.engine.begin_resident(request, sink, context.table, context.position(first))

    def _next_id(self, kind: str) -> str:
        return f"{self.session_id}-{kind}-{next(self._numbers)}"

    # Engine thread: turns

    def _start_turn(self, turn: Turn) -> None:
        try:
            turn.begin(self.context)
            self._make_positions(turn.sampling.max_tokens)
            turn.data_version = self.data_version
            num_tokens = len(self.context.tokens) - self.context.num_computed
            sampling = replace(turn.sampling, max_tokens=min(turn.sampling.max_tokens, self.context.room))
            sink = partial(self._on_turn_event, turn)
            self._run(num_tokens, turn.request_id, sampling, Priority.INTERACTIVE, sink)
        except RequestError as error:
            if turn.has_begun:
                self.context.truncate(turn.num_kept)
            turn.sink(Failed(error))
        else:
            self._running = turn
            self._num_turns_before_batch += self._batch is not None

    def _on_turn_event(self, turn: Turn, event: Event) -> None:
        if isinstance(event, TokensGenerated):
            turn.generated += event.token_ids
            turn.sink(event)
        elif isinstance(event, TerminalEvent):
            num_prefilled = self._work.prompt_len if self._work is not None else 0
            self._running = self._work = None
            turn.sink(self._settle_turn(turn, event, num_prefilled))
            self._advance()

    def _settle_turn(self, turn: Turn, event: TerminalEvent, num_prefilled: int) -> TerminalEvent:
        """Keep the turn, or leave no trace of it; returns what its client is told."""
        context = self.context
        if isinstance(event, Failed):
            context.uncompute(turn.num_computed)  # a failed step leaves its slots undefined
        if not isinstance(event, Finished) or self._is_closed:
            context.truncate(turn.num_kept)
            return Failed(session_not_found()) if self._is_closed else event
        context.tokens += turn.generated
        if turn.clears_after:
            context.truncate(turn.num_kept)
        self.last_used_at = int(self._parts.wall_clock())
        return TurnFinished(
            event.reason,
            turn.usage(event),
            event.text,
            event.stop_text,
            event.logit_gap,
            event.is_early,
            num_generated=event.usage.completion_tokens,
            num_prefilled=num_prefilled,
            total_tokens=len(context.tokens),
            pos_max=self._pos_max(),
            data_version=turn.data_version,
        )

    # Engine thread: background work on what is durable

    def _prefill(self, waiting: _Call | None = None) -> bool:
        """Compute pending tokens, a chunk at a time; fails ``waiting`` with itself."""
        priority = Priority.INGESTION if waiting is None else Priority.INTERACTIVE
        num_tokens = min(self.context.num_pending, self._parts.prefill_chunk)
        num_computed = self.context.num_computed
        sink = partial(self._on_prefill_event, num_computed, waiting)
        try:
            self._run(num_tokens, self._next_id("prefill"), SamplingParams(max_tokens=0), priority, sink)
        except RequestError as error:
            self._give_up_prefill(waiting, error)
            return waiting is not None
        return True

    def _on_prefill_event(self, num_computed: int, waiting: _Call | None, event: Event) -> None:
        if not isinstance(event, TerminalEvent):
            return
        self._work = None
        if isinstance(event, Failed):
            self.context.uncompute(num_computed)
            self._num_failures += 1
            self._give_up_prefill(waiting, event.error)
        else:
            self._num_failures = 0
        self._advance()

    def _give_up_prefill(self, waiting: _Call | None, error: RequestError) -> None:
        if waiting is not None and self._operations and self._operations[0] is waiting:
            self._operations.popleft()
            waiting.fail(error)

    def _start_batch(self, batch: Batch) -> bool:
        context = self.context
        if not context.has_data:
            context.drop_tail()
            needs_line_end = context.tokens and not self._parts.tokenizer.token_bytes(context.tokens[-1]).endswith(
                b"\n"
            )
            context.begin_data(self._parts.separator if needs_line_end else ())
        if not context.takes_data:
            return self._prefill() if self._num_failures < _MAX_ATTEMPTS else self._lose_batch(batch)
        return self._compute_batch(batch)

    def _compute_batch(self, batch: Batch) -> bool:
        context, started = self.context, time.monotonic()
        context.drop_tail()
        eviction = plan_eviction(
            context.window,
            [len(token_ids) for token_ids in batch.token_ids],
            max_entries=self.window_size,
            max_tokens=context.data_budget,
        )
        kept = batch.token_ids[eviction.num_skipped :]
        context.drop_runs(eviction.num_runs)
        self._make_positions(sum(map(len, kept)) + tail_reserve(context.context_len))
        for token_ids in kept:
            context.add_entry(token_ids)
        sink = partial(self._on_batch_event, batch, eviction, context.num_computed, started)
        if not context.num_pending:
            self._commit_batch(batch, eviction, started)
            return True
        try:
            self._run(
                context.num_pending, self._next_id("data"), SamplingParams(max_tokens=0), Priority.INGESTION, sink
            )
        except RequestError:
            self._undo_batch(batch, eviction, context.num_computed)
            return False
        return True

    def _on_batch_event(
        self, batch: Batch, eviction: Eviction, num_computed: int, started: float, event: Event
    ) -> None:
        if not isinstance(event, TerminalEvent):
            return
        self._work = None
        if isinstance(event, Finished) and not self._is_closed:
            self._commit_batch(batch, eviction, started)
        elif not self._is_closed:
            self._undo_batch(batch, eviction, num_computed)
        self._advance()

    def _commit_batch(self, batch: Batch, eviction: Eviction, started: float) -> None:
        self._replace_entries(eviction.num_entries, batch.entries[eviction.num_skipped :])
        self._batch = None
        self._num_turns_before_batch = self._num_failures = 0
        self.data_version += 1
        self._change_revision()
        self._publish_view()  # before the count that clients wait for
        self.ring.settle(len(batch.entries), round((time.monotonic() - started) * 1e6))
        view = self.view
        self.subscribers.tell(DataUpdated(self.data_version, view.data_count, view.pos_next))
        self._parts.has_settled(self)

    def _undo_batch(self, batch: Batch, eviction: Eviction, num_computed: int) -> None:
        """Take a batch out again that could not be computed; after some attempts it is lost."""
        self.context.uncompute(num_computed)
        self.context.drop_newest(len(batch.entries) - eviction.num_skipped)
        self._replace_entries(eviction.num_entries, ())
        self._num_failures += 1
        if self._num_failures >= _MAX_ATTEMPTS:
            self._lose_batch(batch)

    def _lose_batch(self, batch: Batch) -> bool:
        logger.error(
            "session %s: a batch of %d entries could not be computed and is lost", self.session_id, len(batch.entries)
        )
        self._batch = None
        self.ring.settle(len(batch.entries), 0, failed=True)
        self._parts.has_settled(self)
        return True

    def _replace_entries(self, num_oldest: int, new: Sequence[Entry]) -> None:
        with self._entries_lock:
            for _ in range(num_oldest):
                self._entries.popleft()
            self._entries.extend(new)

    def _make_positions(self, num_tokens: int) -> None:
        """See that so many more tokens find a position, if the context has room for them at all."""
        context = self.context
        if context.gap and context.room < min(num_tokens, context.room + context.gap):
            self._end_evaluations()  # their forks share the pages whose keys are rotated
            context.close_gap()

    def _make_pages(self, num_tokens: int) -> None:
        """See that so many more tokens find their pages; forks have to go if they do not."""
        num_tokens = min(num_tokens, self.context.context_len - self.context.num_computed)
        page_size = self._parts.pool.page_size
        num_shared = 1  # the page written first may have to be copied
        if self.context.reservation.num_left < -(-num_tokens // page_size) + num_shared:
            self._end_evaluations()

    # Engine thread: flash queries

    def _change_revision(self) -> None:
        """What is durable has changed: evaluations of what was before are dropped, though no query's twice in a row."""
        self.revision += 1
        for evaluation in [each for each in self._evaluations.values() if not each.was_dropped]:
            self._dropped.add(evaluation.query_id)
            self._end_evaluation(evaluation)

    def _evaluate_flash(self) -> None:
        """Start what is not yet evaluated, all in one batch as far as there are pages."""
        if self._work is not None or self.data_version == 0 or self.context.num_pending:
            return
        due = [query for query in self.flash.queries if self._is_due(query)]
        if due and (self.ring.counts.is_settled or self._num_versions_behind(due) >= _MAX_VERSIONS_BEHIND):
            for query in due:
                if not self._start_evaluation(query):
                    break

    def _is_due(self, query: FlashQuery) -> bool:
        is_evaluated = query.answer is not None and query.answer.revision == self.revision
        return not is_evaluated and query.id not in self._evaluations and self._gave_up.get(query.id) != self.revision

    def _num_versions_behind(self, due: Sequence[FlashQuery]) -> int:
        return self.data_version - min(0 if query.answer is None else query.answer.data_version for query in due)

    def _start_evaluation(self, query: FlashQuery) -> bool:
        """Fork what is durable and ask; returns whether there were pages for it."""
        context, pool = self.context, self._parts.pool
        room = context.context_len - context.durable_end - context.gap - len(query.token_ids)
        if room < 1:
            self._gave_up[query.id] = self.revision
            logger.warning("session %s: flash query %d does not fit the context", self.session_id, query.id)
            return True
        max_len = context.durable_end + len(query.token_ids) + min(query.max_tokens, room) - 1
        if not context.can_fork(max_len):
            return False
        fork = pool.fork(context.table, max_len, num_tokens=context.durable_end)
        evaluation = Evaluation(
            query.id, self.data_version, self.revision, was_dropped=query.id in self._dropped, fork=fork
        )
        request = Request(
            self._next_id("flash"),
            query.token_ids,
            SamplingParams(max_tokens=min(query.max_tokens, room), logit_gap=True),
            Priority.FLASH,
        )
        sink = partial(self._on_flash_event, evaluation)
        try:
            position = context.position(context.durable_end)
            evaluation.sequence = self._parts.engine.begin_resident(request, sink, fork, position)
        except RequestError:
            pool.release(fork)
            return False
        self._evaluations[query.id] = evaluation
        return True

    def _on_flash_event(self, evaluation: Evaluation, event: Event) -> None:
        if isinstance(event, TokensGenerated):
            evaluation.collect(event)
        elif isinstance(event, TerminalEvent):
            self._parts.pool.release(evaluation.fork)
            del self._evaluations[evaluation.query_id]
            query = self.flash.get(evaluation.query_id)
            if isinstance(event, Finished) and query is not None:
                self._store_answer(query, evaluation.answer(event, int(self._parts.wall_clock())))
            elif isinstance(event, Failed):
                self._gave_up[evaluation.query_id] = evaluation.revision
            if not evaluation.is_ended_by_us:
                self._advance()

    def _store_answer(self, query: FlashQuery, answer: FlashAnswer) -> None:
        answered = replace(query, answer=answer)
        self.flash.put(answered)
        self._dropped.discard(query.id)
        self.num_evaluations += 1
        if query.answer is None or query.answer.value != answer.value:
            self.subscribers.tell(answered.ready_event())

    def _end_evaluation(self, evaluation: Evaluation) -> None:
        evaluation.is_ended_by_us = True
        assert evaluation.sequence is not None
        self._parts.engine.end_resident(evaluation.sequence)

    def _end_evaluations(self) -> None:
        for evaluation in list(self._evaluations.values()):
            self._end_evaluation(evaluation)

    # Engine thread: the end, and what others see

    def _release_if_quiet(self) -> None:
        if self._is_closed and self._when_closed and self._work is None and not self._evaluations:
            when_closed, self._when_closed = self._when_closed, []
            if not self._is_released:
                self._is_released = True
                self.context.release()
            for call in when_closed:
                call()

    def _publish_view(self) -> None:
        self.view = self._make_view()

    def _make_view(self) -> SessionView:
        context = self.context
        pos_next = context.durable_end + (context.gap if context.has_data else 0)
        data_start = context.data_begin + context.gap
        return SessionView(
            session_id=self.session_id,
            type=self.stream_type.name,
            context_len=context.context_len,
            window_size=self.window_size,
            num_tokens=len(context.tokens),
            num_pending=context.num_pending,
            pos_min=context.position(0) if context.tokens else -1,
            pos_max=self._pos_max(),
            pos_next=pos_next,
            prefix_end=context.prefix_end,
            data_start=data_start,
            data_end=pos_next,
            data_tokens=context.durable_end - context.data_begin,
            data_count=len(self._entries),
            data_version=self.data_version,
            revision=self.revision,
            created_at=self.created_at,
            last_used_at=self.last_used_at,
            is_busy=self._running is not None or bool(self._operations),
        )

    def _pos_max(self) -> int:
        return self.context.position(len(self.context.tokens) - 1) if self.context.tokens else -1
