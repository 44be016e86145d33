"""The one sequence that extends a session's context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from layerscale_core.constraints import Constraint
from layerscale_core.engine import Engine, SamplingParams
from layerscale_core.engine.request import Event, EventSink, Failed, Request, TerminalEvent
from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.sessions.context import SessionContext
from layerscale_core.specs.scheduler import Priority


class ContextLane:
    """Runs one sequence at a time on a session's own table. Thread: engine.

    Args:
        when_idle: called whenever a sequence has ended, after its sink.
    """

    def __init__(self, engine: Engine, context: SessionContext, when_idle: Callable[[], None]) -> None:
        self._engine = engine
        self._context = context
        self._when_idle = when_idle
        self._sequence: LiveSequence | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a sequence runs."""
        return self._sequence is not None

    def run(
        self,
        request_id: str,
        num_tokens: int,
        sampling: SamplingParams,
        priority: Priority,
        sink: EventSink,
        *,
        constraint: Constraint | None = None,
    ) -> None:
        """Compute the next tokens of the context, then as many new ones as are wanted and find room.

        Raises:
            ShuttingDownError: no work is accepted any more.
            InvalidRequestError: the id is in use.
        """
        assert self._sequence is None
        self._context.begin_page()
        context, first = self._context, self._context.num_computed
        max_tokens = min(sampling.max_tokens, context.room)
        context.make_pages(num_tokens + max_tokens)
        token_ids = tuple(context.tokens[first : first + num_tokens])
        asked = replace(sampling, max_tokens=max_tokens)
        request = Request(request_id, token_ids, asked, priority, constraint=constraint)
        on_event, position = partial(self._on_event, sink, first), context.position(first)
        history = context.tokens[:first] if max_tokens else ()
        self._sequence = self._engine.begin_resident(request, on_event, context.table, position, history)

    def hurry(self) -> None:
        """Somebody waits for what runs."""
        if self._sequence is not None:
            self._sequence.priority = Priority.INTERACTIVE

    def end(self) -> None:
        """End what runs, at once, as cancelled."""
        if self._sequence is not None:
            self._engine.end_resident(self._sequence)

    def _on_event(self, sink: EventSink, num_computed: int, event: Event) -> None:
        if not isinstance(event, TerminalEvent):
            sink(event)
            return
        self._sequence = None
        try:
            if isinstance(event, Failed):
                self._context.distrust(num_computed)
            sink(event)
        finally:
            self._when_idle()
