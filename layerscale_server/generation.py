"""From the engine's thread to the event loop: the events of one HTTP request, as an async stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from layerscale_core.constraints import Constraint
from layerscale_core.engine.engine import Engine
from layerscale_core.engine.request import Cancelled, Event, EventSink, Failed, Finished, Request
from layerscale_core.engine.sampling_params import SamplingParams
from layerscale_core.engine.stats import EngineStats
from layerscale_core.errors import RequestError, ShuttingDownError
from layerscale_core.sessions import ChatPrompt, Prompt, Session, Turn
from layerscale_server.errors import ClientGoneError, SlowReaderError

Batch = list[tuple[int, Event]]
"""Events that arrived together, each with the index of its request."""

Cancel = Callable[[], None]


class Generation:
    """What one HTTP request generates. Leaving its ``async with`` cancels what has not ended."""

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._live: dict[int, Cancel] = {}  # how to cancel what has not ended, by index
        self._arrived: Batch = []
        self._has_arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.cancel()

    def add(self, index: int, cancel: Cancel) -> None:
        """Expect the events of a request that was taken."""
        self._live[index] = cancel

    def cancel(self) -> None:
        """Ask for an end of whatever has not ended; terminal events follow. Idempotent."""
        for cancel in self._live.values():
            cancel()

    def deliver(self, index: int, event: Event) -> None:
        """Take an event in. What comes after the end, or for a reader who is too slow, is dropped."""
        if index not in self._live:
            return
        if isinstance(event, Finished | Failed | Cancelled):
            del self._live[index]
        elif len(self._arrived) >= self._max_events:
            self.cancel()
            self._live.clear()
            event = Failed(SlowReaderError())
        self._arrived.append((index, event))
        self._has_arrived.set()

    async def batches(self, silence_s: float | None = None) -> AsyncIterator[Batch]:
        """The events in order until every request has ended, as many at a time as have arrived.

        Args:
            silence_s: after so long without an event an empty batch comes; None = never.

        Raises:
            RequestError: one of the requests failed.
            ClientGoneError: one of the requests was cancelled.
        """
        while self._live or self._arrived:
            try:
                async with asyncio.timeout(silence_s):
                    await self._has_arrived.wait()
            except TimeoutError:
                yield []
                continue
            batch, self._arrived = self._arrived, []
            self._has_arrived.clear()
            good, error = _split(batch)
            if good:
                yield good
            if error is not None:
                raise error


def _split(batch: Batch) -> tuple[Batch, Exception | None]:
    """The events up to the first that is an error, and that error."""
    for position, (_, event) in enumerate(batch):
        if isinstance(event, Failed):
            return batch[:position], event.error
        if isinstance(event, Cancelled):
            return batch[:position], ClientGoneError()
    return batch, None


class AsyncEngine:
    """An engine as one event loop sees it; its methods are called there.

    The engine's thread leaves events in one inbox and wakes the loop once for all that arrive until it looks.
    """

    def __init__(self, engine: Engine, max_events: int) -> None:
        self._engine = engine
        self._max_events = max_events
        self._inbox: deque[tuple[Generation, int, Event]] = deque()
        self._is_waking = False

    def stats(self) -> EngineStats:
        """The engine's counts now."""
        return self._engine.stats()

    def check_accepting(self) -> None:
        """Ask before work is spent on a request whether any could be accepted now.

        Raises:
            QueueFullError, ShuttingDownError: none could.
        """
        self._engine.check_accepting()

    def submit(self, requests: Sequence[Request]) -> Generation:
        """Hand requests to the engine, all or none; their events come from the generation.

        Raises:
            RequestError: the engine does not take one of them.
        """
        loop = asyncio.get_running_loop()
        generation = Generation(self._max_events)
        try:
            for index, request in enumerate(requests):
                self._engine.submit(request, partial(self._receive, loop, generation, index))
                generation.add(index, partial(self._engine.cancel, request.request_id))
        except RequestError:
            generation.cancel()
            raise
        return generation

    def ask(
        self,
        session: Session,
        request_id: str,
        prompt: Prompt,
        sampling: SamplingParams,
        *,
        clears_after: bool = False,
        constraint: Constraint | None = None,
    ) -> Generation:
        """Hand a question to a session; its events come from the generation, at index 0.

        Raises:
            InvalidRequestError: a sampling parameter is out of range.
            ShuttingDownError: no work is accepted any more.
        """
        self._engine.check_sampling(sampling)
        generation = Generation(self._max_events)
        turn = Turn(request_id, prompt, sampling, self._sink(generation), clears_after, constraint)
        return _submit(session, turn, generation)

    def warm_up(self, session: Session, request_id: str, prompt: ChatPrompt) -> Generation:
        """Have a session compute what it is expected to be asked; it ends with a ``TurnFinished`` without an answer.

        Raises:
            ShuttingDownError: no work is accepted any more.
        """
        generation = Generation(self._max_events)
        turn = Turn(request_id, prompt, SamplingParams(0), self._sink(generation), is_warm_up=True)
        return _submit(session, turn, generation)

    def _sink(self, generation: Generation) -> EventSink:
        return partial(self._receive, asyncio.get_running_loop(), generation, 0)

    def _receive(self, loop: asyncio.AbstractEventLoop, generation: Generation, index: int, event: Event) -> None:
        """Take an event from the engine. Engine thread."""
        self._inbox.append((generation, index, event))
        if not self._is_waking:
            self._is_waking = True
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_waking = False  # before the inbox is emptied: what arrives from now on wakes the loop again
        while self._inbox:
            generation, index, event = self._inbox.popleft()
            generation.deliver(index, event)


def _submit(session: Session, turn: Turn, generation: Generation) -> Generation:
    """Have a session take a turn whose events come from the generation."""
    session.submit(turn)
    generation.add(0, partial(_cancel_turn, session, turn.request_id))
    return generation


def _cancel_turn(session: Session, request_id: str) -> None:
    with contextlib.suppress(ShuttingDownError):  # then everything has ended, or is about to
        session.cancel(request_id)
