"""What a session does next: its requests in order, data in between, Flash Queries beside."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from layerscale_core.engine.request import Event, Failed, TerminalEvent
from layerscale_core.errors import NotFoundError, QueueFullError, RequestError
from layerscale_core.sessions.calls import Call
from layerscale_core.sessions.evaluation import FlashEvaluations
from layerscale_core.sessions.events import SessionClosed
from layerscale_core.sessions.ingestion import Batch, Ingestion
from layerscale_core.sessions.lane import ContextLane
from layerscale_core.sessions.parts import SessionParts
from layerscale_core.sessions.prefill import Prefill
from layerscale_core.sessions.turns import Turn
from layerscale_core.sessions.view import SessionView

_MAX_TURNS_BEFORE_BATCH = 4
"""A batch of data lets so many questions go first."""


def session_not_found() -> NotFoundError:
    """The error of every request to a session that is not there, or not any more."""
    return NotFoundError("there is no such session", code="session_not_found")


class SessionActor:
    """Runs one thing after the other on a session's context; forks of it run beside. Thread: engine.

    Attributes:
        view: replaced after every change; read by any thread.
        last_used_at: Unix seconds.
    """

    def __init__(self, parts: SessionParts) -> None:
        self.created_at = self.last_used_at = parts.now()
        self.is_closed = False
        self.lane = ContextLane(parts.engine, parts.context, self.advance)
        self.prefill = Prefill(parts, self.lane)
        self.ingestion = Ingestion(parts, self.lane, self.prefill, self.publish_view)
        self.evaluations = FlashEvaluations(parts, self.advance)
        self._parts = parts
        self._context = parts.context
        self._operations: deque[Turn | Call[Any]] = deque()
        self._turn: Turn | None = None
        self._num_turns_before_batch = 0
        self._is_advancing = False
        self.view = self.make_view()

    # Told from outside

    def begin(self, token_ids: Sequence[int]) -> None:
        """Start with a prompt."""
        self._context.append(token_ids)
        self.advance()

    def offer(self, batch: Batch) -> None:
        """Take a batch in as soon as nothing else runs; the one before it is settled."""
        if not self.is_closed:
            self.ingestion.offer(batch)
            self._end_warm_up()
            self.advance()

    def close(self) -> None:
        """End everything and give the session's pages back."""
        self.is_closed = True
        self._parts.subscribers.tell(SessionClosed())
        while self._operations:
            self._operations.popleft().fail(session_not_found())
        self.evaluations.end_all()
        self.lane.end()
        self._context.release()

    def enqueue(self, operation: Turn | Call[Any]) -> None:
        """Serve a request after all that came before it."""
        if self.is_closed:
            operation.fail(session_not_found())
            return
        if len(self._operations) >= self._parts.max_waiting:
            operation.fail(QueueFullError("too many requests are waiting in this session"))
            return
        self._operations.append(operation)
        self._end_warm_up()
        self.last_used_at = self._parts.now()
        self.prefill.retry()
        self.lane.hurry()
        self.advance()

    def cancel(self, request_id: str) -> None:
        """End a turn, running or waiting."""
        if self._turn is not None and self._turn.request_id == request_id:
            self._parts.engine.cancel(request_id)
            return
        for operation in self._operations:
            if isinstance(operation, Turn) and operation.request_id == request_id:
                self._operations.remove(operation)
                self.publish_view()
                operation.cancel()
                break

    def _end_warm_up(self) -> None:
        """What is warmed up gives way, and what it has computed stays."""
        if self._turn is not None and self._turn.is_warm_up:
            self._parts.engine.cancel(self._turn.request_id)

    def touch(self) -> None:
        """Somebody is about to use it."""
        self.last_used_at = self._parts.now()
        self.publish_view()

    @property
    def idle_s(self) -> int:
        """Seconds since its last use; 0 while a request runs or waits."""
        return 0 if self._is_busy else self._parts.now() - self.last_used_at

    @property
    def _is_busy(self) -> bool:
        return self._turn is not None or bool(self._operations)

    # What is next

    def advance(self) -> None:
        """Start what is next, until something runs or there is nothing."""
        if self._is_advancing:
            return  # called by an event of what is being started
        self._is_advancing = True
        try:
            while not self.lane.is_busy and not self.is_closed and self._start_next():
                pass
        finally:
            self._is_advancing = False
        self.publish_view()

    def _start_next(self) -> bool:
        """Start or do one thing; returns whether there was one."""
        is_quiet = not self._operations and self._parts.ring.counts.is_settled
        self.evaluations.start_due(self.ingestion.data_version, is_quiet=is_quiet)
        is_overdue = self._num_turns_before_batch >= _MAX_TURNS_BEFORE_BATCH
        takes_batch = self.ingestion.has_batch and not self.evaluations.must_finish
        if takes_batch and (is_overdue or not self._operations):
            self._num_turns_before_batch = 0
            self.ingestion.start()
        elif self._operations:
            self._start_operation(self._operations[0])
        elif self.prefill.is_due:
            self.prefill.start()
        else:
            return False
        return True

    def _start_operation(self, operation: Turn | Call[Any]) -> None:
        if isinstance(operation, Turn) and self._context.lacks_prefix:
            self.prefill.start(partial(self._prefix_failed, operation))
        elif isinstance(operation, Turn):
            self._operations.popleft()
            self._start_turn(operation)
        elif operation.needs_prefill and self._context.num_pending and not operation.is_over:
            self.prefill.start(operation.fail)
        else:
            self._operations.popleft()
            self._context.drop_warmed()
            operation.run()

    def _prefix_failed(self, turn: Turn, error: RequestError) -> None:
        if self.prefill.has_given_up and turn in self._operations:
            self._operations.remove(turn)
            turn.fail(error)

    def _start_turn(self, turn: Turn) -> None:
        self._num_turns_before_batch += self.ingestion.has_batch
        try:
            turn.begin(self._context, self.ingestion.data_version)
            sink = partial(self._on_turn_event, turn)
            wanted = (turn.sampling, turn.priority, sink)
            self.lane.run(turn.request_id, turn.num_prefilled, *wanted, constraint=turn.constraint)
        except RequestError as error:
            turn.undo(self._context)
            turn.fail(error)
        else:
            self._turn = turn

    def _on_turn_event(self, turn: Turn, event: Event) -> None:
        if not isinstance(event, TerminalEvent):
            turn.collect(event)
            return
        self._turn = None
        self.last_used_at = self._parts.now()
        outcome = turn.settle(self._context, event)
        self.publish_view()  # before the client can look
        turn.end(Failed(session_not_found()) if self.is_closed else outcome)

    # What others see

    def publish_view(self) -> None:
        """Let other threads see what has changed."""
        self.view = self.make_view()

    def make_view(self) -> SessionView:
        """Where the session stands now."""
        context = self._context
        pos_next = context.position(context.durable_end)
        return SessionView(
            session_id=self._parts.session_id,
            type=self._parts.stream_type.name,
            context_len=context.context_len,
            window_size=self._parts.window.max_entries,
            num_tokens=len(context.tokens),
            num_pending=context.num_pending,
            pos_min=context.position(0) if context.tokens else -1,
            pos_max=context.pos_max,
            pos_next=pos_next,
            prefix_end=context.prefix_end,
            data_start=context.position(context.data_begin),
            data_end=pos_next,
            data_tokens=context.durable_end - context.data_begin,
            data_count=len(self._parts.window),
            data_version=self.ingestion.data_version,
            revision=context.revision,
            created_at=self.created_at,
            last_used_at=self.last_used_at,
            is_busy=self._is_busy,
        )
