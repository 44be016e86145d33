"""From the engine's thread to the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from layerscale_core.engine import (
    Cancelled,
    Event,
    Failed,
    Finished,
    FinishReason,
    Request,
    SamplingParams,
    TokensGenerated,
    Usage,
)
from layerscale_core.errors import InvalidRequestError, RequestError, StepError
from layerscale_server.errors import ClientGoneError, SlowReaderError
from layerscale_server.generation import AsyncEngine, Batch
from tests.server.conftest import FakeServer, greedy_text

END = Finished(FinishReason.STOP, Usage(1, 1))
REQUEST = Request("r", (1,), SamplingParams(max_tokens=1))


def word(text: str) -> TokensGenerated:
    return TokensGenerated(text, (1,))


class ScriptedEngine:
    """Hands out its sinks, so that a test plays the engine's thread."""

    def __init__(self) -> None:
        self.sinks: list[Any] = []
        self.cancelled: list[str] = []
        self.refuses_from = 1000

    def submit(self, request: Request, sink: Any) -> None:
        if len(self.sinks) >= self.refuses_from:
            raise InvalidRequestError("no")
        self.sinks.append(sink)

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)

    async def say(self, *events: tuple[int, Event]) -> None:
        """Send events from another thread."""

        def send() -> None:
            for index, event in events:
                self.sinks[index](event)

        await asyncio.to_thread(send)


def make(max_events: int = 100) -> tuple[ScriptedEngine, AsyncEngine]:
    scripted = ScriptedEngine()
    return scripted, AsyncEngine(scripted, max_events)  # type: ignore[arg-type]  # the part of an engine used here


async def collect(generation: Any, batches: list[Batch], silence_s: float | None = None) -> None:
    async for batch in generation.batches(silence_s):
        batches.append(batch)  # noqa: PERF401 (the caller looks while they come)


def test_events_that_arrive_together_come_together_in_order() -> None:
    async def work() -> None:
        scripted, engine = make()
        generation = engine.submit([REQUEST, REQUEST])
        await scripted.say((0, word("a")), (1, word("b")), (0, END), (1, word("c")), (1, END))
        batches: list[Batch] = []
        await collect(generation, batches)
        assert batches == [[(0, word("a")), (1, word("b")), (0, END), (1, word("c")), (1, END)]]

    asyncio.run(work())


def test_many_events_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        scripted, engine = make()
        generations = [engine.submit([REQUEST]) for _ in range(10)]
        wake_ups: list[str] = []
        loop = asyncio.get_running_loop()
        real = loop.call_soon_threadsafe

        def count(callback: Any) -> None:
            wake_ups.append(callback.__name__)
            real(callback)

        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        for index in range(10):  # on the loop's own thread, so that it cannot look in between
            scripted.sinks[index](word("a"))
            scripted.sinks[index](END)
        for generation in generations:
            batches: list[Batch] = []
            await collect(generation, batches)
            assert batches == [[(0, word("a")), (0, END)]]
        assert wake_ups.count("_empty") == 1

    asyncio.run(work())


def test_silence_is_an_empty_batch() -> None:
    async def work() -> None:
        scripted, engine = make()
        generation = engine.submit([REQUEST])
        batches: list[Batch] = []
        task = asyncio.create_task(collect(generation, batches, silence_s=0.01))
        while len(batches) < 3:
            await asyncio.sleep(0.005)
        await scripted.say((0, END))
        await task
        assert batches[:3] == [[], [], []]
        assert batches[-1] == [(0, END)]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("event", "raised"), [(Failed(StepError("broken")), StepError), (Cancelled(), ClientGoneError)]
)
def test_what_came_before_an_error_is_not_lost(event: Event, raised: type[Exception]) -> None:
    async def work() -> None:
        scripted, engine = make()
        generation = engine.submit([REQUEST])
        await scripted.say((0, word("a")), (0, event))
        batches: list[Batch] = []
        with pytest.raises(raised):
            await collect(generation, batches)
        assert batches == [[(0, word("a"))]]

    asyncio.run(work())


def test_leaving_early_cancels_what_has_not_ended() -> None:
    async def work() -> None:
        scripted, engine = make()
        requests = [Request(name, (1,), SamplingParams(max_tokens=1)) for name in ("a", "b")]
        async with engine.submit(requests) as generation:
            await scripted.say((0, END))
            await anext(generation.batches())
        assert scripted.cancelled == ["b"]

    asyncio.run(work())


def test_refusing_one_request_takes_back_the_others() -> None:
    async def work() -> None:
        scripted, engine = make()
        scripted.refuses_from = 2
        requests = [Request(name, (1,), SamplingParams(max_tokens=1)) for name in ("a", "b", "c")]
        with pytest.raises(RequestError):
            engine.submit(requests)
        assert scripted.cancelled == ["a", "b"]

    asyncio.run(work())


def test_reader_who_falls_behind_gets_what_fits_then_an_error() -> None:
    async def work() -> None:
        scripted, engine = make(max_events=3)
        generation = engine.submit([REQUEST])
        await scripted.say(*[(0, word("a"))] * 1000)
        await scripted.say((0, word("b")), (0, Cancelled()))
        batches: list[Batch] = []
        with pytest.raises(SlowReaderError):
            await collect(generation, batches)
        assert batches == [[(0, word("a"))] * 3]
        assert scripted.cancelled == ["r"]

    asyncio.run(work())


def test_end_arrives_even_when_the_buffer_is_full() -> None:
    async def work() -> None:
        scripted, engine = make(max_events=3)
        generation = engine.submit([REQUEST])
        await scripted.say(*[(0, word("a"))] * 3, (0, END))
        batches: list[Batch] = []
        await collect(generation, batches)
        assert batches[0][-1] == (0, END)
        assert scripted.cancelled == []

    asyncio.run(work())


def test_many_streams_at_once_keep_their_own_events(server: FakeServer) -> None:
    async def work(client: Any) -> list[str]:
        bodies = [{"prompt": [index + 1], "max_tokens": 20, "temperature": 0} for index in range(50)]
        responses = await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))
        return [response.json()["choices"][0]["text"] for response in responses]

    assert server.run(work) == [greedy_text([index + 1], 20) for index in range(50)]
