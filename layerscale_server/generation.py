"""From the engine's thread to the event loop: the events of one HTTP request, as an async stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
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
from layerscale_server.inbox import Inbox
from layerscale_server.response_cache import Deliver, ResponseCache, response_key

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

    def replay(self, index: int, answer: Iterable[Event]) -> None:
        """Take in a whole answer that was given before; it says nothing of how fast the reader is."""
        replayed = [(index, event) for event in answer]
        self._arrived += replayed
        self._max_events += len(replayed)
        self._has_arrived.set()

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

    Args:
        max_events: that wait for one reader.
        responses: answers to earlier requests, given again to those that are alike in all that matters; None: none are.
    """

    def __init__(self, engine: Engine, max_events: int, responses: ResponseCache | None = None) -> None:
        self._engine = engine
        self._max_events = max_events
        self._responses = responses
        self._inbox = Inbox[Deliver, Event](lambda deliver, event: deliver(event))

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
        generation = Generation(self._max_events)
        try:
            for index, request in enumerate(requests):
                self._submit(request, generation, index)
        except RequestError:
            generation.cancel()
            raise
        return generation

    def _submit(self, request: Request, generation: Generation, index: int) -> None:
        """Have a request answered by an earlier answer, or else by the engine."""
        deliver: Deliver = partial(generation.deliver, index)
        if self._responses is not None and (key := response_key(request)) is not None:
            if (answer := self._responses.find(key)) is not None:
                generation.replay(index, answer)
                return
            deliver = self._responses.recording(key, deliver)
        self._engine.submit(request, self._sink(deliver))
        generation.add(index, partial(self._engine.cancel, request.request_id))

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
        turn = Turn(request_id, prompt, sampling, self._sink(partial(generation.deliver, 0)), clears_after, constraint)
        return _taken(session, turn, generation)

    def warm_up(self, session: Session, request_id: str, prompt: ChatPrompt) -> Generation:
        """Have a session compute what it is expected to be asked; it ends with a ``TurnFinished`` without an answer.

        Raises:
            ShuttingDownError: no work is accepted any more.
        """
        generation = Generation(self._max_events)
        turn = Turn(request_id, prompt, SamplingParams(0), self._sink(partial(generation.deliver, 0)), is_warm_up=True)
        return _taken(session, turn, generation)

    def _sink(self, deliver: Deliver) -> EventSink:
        return partial(self._inbox.put, asyncio.get_running_loop(), deliver)


def _taken(session: Session, turn: Turn, generation: Generation) -> Generation:
    """Have a session take a turn whose events come from the generation."""
    session.submit(turn)
    generation.add(0, partial(_cancel_turn, session, turn.request_id))
    return generation


def _cancel_turn(session: Session, request_id: str) -> None:
    with contextlib.suppress(ShuttingDownError):  # then everything has ended, or is about to
        session.cancel(request_id)
