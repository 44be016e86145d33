"""Computing what was appended, in the background or for somebody who needs it computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from layerscale_core.engine import SamplingParams
from layerscale_core.engine.request import Event, Failed, Finished
from layerscale_core.errors import RequestError
from layerscale_core.sessions.lane import ContextLane
from layerscale_core.sessions.parts import SessionParts
from layerscale_core.specs.scheduler import Priority

MAX_ATTEMPTS = 3
"""How often background work is tried before it is given up."""

NO_TOKENS = SamplingParams(max_tokens=0)

_FailureSink = Callable[[RequestError], None]


class Prefill:
    """Computes pending tokens, a chunk at a time, so that a question can go between. Thread: engine."""

    def __init__(self, parts: SessionParts, lane: ContextLane) -> None:
        self._request_id = f"{parts.session_id}-prefill"
        self._context = parts.context
        self._lane = lane
        self._chunk_len = parts.prefill_chunk
        self._num_failures = 0

    @property
    def is_due(self) -> bool:
        """Whether something is pending and not given up."""
        return self._context.num_pending > 0 and not self.has_given_up

    @property
    def has_given_up(self) -> bool:
        """Whether it failed so often in a row that it waits for somebody to ask."""
        return self._num_failures >= MAX_ATTEMPTS

    def retry(self) -> None:
        """Somebody asked: what was given up is tried again."""
        self._num_failures = 0

    def start(self, when_failed: _FailureSink | None = None) -> None:
        """Begin the next chunk.

        Args:
            when_failed: somebody waits for it, and is told if it fails.
        """
        priority = Priority.INGESTION if when_failed is None else Priority.INTERACTIVE
        num_tokens = min(self._context.num_next, self._chunk_len)
        try:
            self._lane.run(self._request_id, num_tokens, NO_TOKENS, priority, partial(self._on_event, when_failed))
        except RequestError as error:
            self._num_failures = MAX_ATTEMPTS
            self._fail(when_failed, error)

    def _on_event(self, when_failed: _FailureSink | None, event: Event) -> None:
        if isinstance(event, Finished):
            self._num_failures = 0
        elif isinstance(event, Failed):
            self._num_failures += 1
            self._fail(when_failed, event.error)

    def _fail(self, when_failed: _FailureSink | None, error: RequestError) -> None:
        if when_failed is not None:
            when_failed(error)
