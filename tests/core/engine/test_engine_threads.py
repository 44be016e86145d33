"""The engine on its own thread: submitted to, cancelled, drained and stopped from others."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

from layerscale_core.engine import Cancelled, Event, Failed, Finished, Request, SamplingParams, TokensGenerated
from layerscale_core.errors import ShuttingDownError
from layerscale_core.specs import StepBatch
from tests.support.engine_harness import EngineHarness, make_harness
from tests.support.fake_executor import greedy_answer

WAIT_S = 30.0


class Gate:
    """Holds the executor inside a step until it is opened."""

    def __init__(self, harness: EngineHarness) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()
        harness.executor.before_step = self._hold

    def _hold(self, batch: StepBatch) -> None:
        self._entered.set()
        assert self._opened.wait(WAIT_S)

    def wait_until_entered(self) -> None:
        assert self._entered.wait(WAIT_S)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def harness() -> Iterator[EngineHarness]:
    harness = make_harness()
    harness.engine.start()
    yield harness
    harness.engine.stop()
    harness.check_at_rest()


def long_running_harness() -> EngineHarness:
    """Answers of thousands of tokens, which nobody waits for."""
    return make_harness(max_context_len=100_000, num_pages=50_000)


def test_requests_of_many_threads_all_get_their_answers(harness: EngineHarness) -> None:
    def client(number: int) -> None:
        for turn in range(5):
            harness.submit(f"{number}.{turn}", bytes([number, turn]), 6).wait()

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(WAIT_S)
    assert len(harness.sinks) == 40
    for request_id, sink in harness.sinks.items():
        number, turn = map(int, request_id.split("."))
        assert sink.token_ids == greedy_answer(bytes([number, turn]), 6)


def test_events_come_on_the_engine_thread(harness: EngineHarness) -> None:
    names: set[str] = set()
    ended = threading.Event()

    def sink(event: Event) -> None:
        names.add(threading.current_thread().name)
        if isinstance(event, Finished | Cancelled):
            ended.set()

    for request_id in ("a", "b"):
        ended.clear()
        harness.engine.submit(Request(request_id, (1,), SamplingParams(60)), sink)
        harness.engine.cancel("b")
        assert ended.wait(WAIT_S)
    assert names == {"layerscale-engine"}


def test_a_cancel_during_a_step_takes_effect_before_the_next(harness: EngineHarness) -> None:
    gate = Gate(harness)
    sink = harness.submit("a", b"hi", 50)
    gate.wait_until_entered()
    harness.engine.cancel("a")
    gate.open()
    assert sink.wait() == Cancelled()
    assert len(sink.events) == 2  # the token of the step it was in, and the end


def test_a_cancel_during_a_step_reaches_those_in_the_queue_and_in_prefill() -> None:
    harness = make_harness(max_running=2, max_tokens_per_step=4)
    gate = Gate(harness)
    sinks = [harness.submit(f"r{number}", bytes(40), 5) for number in range(4)]
    harness.engine.start()
    gate.wait_until_entered()
    for request_id in ("r1", "r3"):
        harness.engine.cancel(request_id)
    gate.open()
    assert [type(sink.wait()) for sink in sinks] == [Finished, Cancelled, Finished, Cancelled]
    harness.engine.stop()
    harness.check_at_rest()
    assert len(sinks[1].events) == len(sinks[3].events) == 1


def test_statistics_do_not_wait_for_a_step(harness: EngineHarness) -> None:
    gate = Gate(harness)
    sink = harness.submit("a", b"hi")
    gate.wait_until_entered()
    stats = harness.engine.stats()
    assert (stats.num_running, stats.num_steps, stats.has_work) == (1, 0, True)
    gate.open()
    sink.wait()


def test_an_idle_engine_sleeps_until_there_is_news() -> None:
    calls: list[str] = []
    resting = threading.Event()

    def clock() -> float:
        calls.append("clock")
        return 0.0

    harness = make_harness(clock=clock)
    check_integrity = harness.pool.check_integrity

    def check_and_rest() -> None:
        check_integrity()
        resting.set()

    harness.pool.check_integrity = check_and_rest  # type: ignore[method-assign]
    harness.engine.start()
    assert resting.wait(WAIT_S)
    for request_id in ("a", "b"):
        num_calls = len(calls)
        assert not threading.Event().wait(0.05)  # time in which a polling engine would have looked
        assert len(calls) == num_calls
        resting.clear()
        harness.submit(request_id, b"hi").wait()
        assert resting.wait(WAIT_S)
    harness.engine.stop()


def test_drain_refuses_new_work_and_finishes_what_runs_and_what_waits() -> None:
    harness = make_harness(max_running=1)
    gate = Gate(harness)
    sinks = [harness.submit(f"r{number}", b"hi", 5) for number in range(3)]
    harness.engine.start()
    gate.wait_until_entered()
    finished: list[bool] = []
    draining = threading.Thread(target=lambda: finished.append(harness.engine.drain(WAIT_S)))
    draining.start()
    with pytest.raises(ShuttingDownError):  # noqa: PT012 (until the other thread has begun, it is accepted)
        while True:
            harness.engine.check_accepting()
    with pytest.raises(ShuttingDownError):
        harness.submit("late", b"hi")
    gate.open()
    draining.join(WAIT_S)
    assert finished == [True]
    harness.check_at_rest()
    assert all(sink.token_ids == greedy_answer(b"hi", 5) for sink in sinks)


def test_what_a_drain_cannot_wait_for_ends_with_an_error() -> None:
    harness = long_running_harness()
    harness.engine.start()
    sinks = [harness.submit(f"r{number}", b"hi", 90_000) for number in range(9)]
    assert not harness.engine.drain(timeout_s=0.05)
    harness.check_at_rest()
    for sink in sinks:
        assert isinstance(sink.end, Failed)
        assert isinstance(sink.end.error, ShuttingDownError)
    running = [sink for sink in sinks if len(sink.events) > 1]
    assert all(isinstance(event, TokensGenerated) for sink in running for event in sink.events[:-1])


def test_draining_an_idle_engine_is_immediate(harness: EngineHarness) -> None:
    assert harness.engine.drain(WAIT_S)
    assert harness.engine.drain(WAIT_S)


def test_stop_ends_everything_and_may_be_repeated() -> None:
    harness = long_running_harness()
    harness.engine.start()
    sinks = [harness.submit(f"r{number}", b"hi", 90_000) for number in range(9)]
    harness.engine.stop()
    harness.engine.stop()
    harness.check_at_rest()
    assert all(isinstance(sink.end, Failed) and isinstance(sink.end.error, ShuttingDownError) for sink in sinks)
    assert "layerscale-engine" not in {thread.name for thread in threading.enumerate()}
    assert harness.engine.stats().pool == harness.pool.stats()
    with pytest.raises(ShuttingDownError):
        harness.submit("late", b"hi")


def test_stop_before_start_ends_what_was_accepted() -> None:
    harness = make_harness()
    sink = harness.submit("a", b"hi")
    harness.engine.stop()
    assert isinstance(sink.end, Failed)
    harness.check_at_rest()


def test_a_hanging_step_is_left_behind_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    harness = make_harness()
    gate = Gate(harness)
    sink = harness.submit("a", b"hi")
    harness.engine.start()
    gate.wait_until_entered()
    harness.engine.stop(timeout_s=0.01)
    assert "left behind" in caplog.text
    gate.open()
    assert isinstance(sink.wait(), Failed)
    harness.engine.stop()


@pytest.mark.parametrize("seed", range(4))
def test_cancels_from_other_threads_at_any_moment(seed: int) -> None:
    harness = make_harness(max_running=4, max_tokens_per_step=8, max_context_len=1000, num_pages=1200)
    harness.engine.start()
    chance = random.Random(seed)
    plans = [
        [(f"{seed}.{client}.{number}", chance.randrange(1, 40), chance.randrange(6)) for number in range(70)]
        for client in range(4)
    ]

    def client(plan: list[tuple[str, int, int]]) -> None:
        for request_id, prompt_len, num_waits in plan:
            sink = harness.submit(request_id, bytes(prompt_len), 900)
            for _ in range(num_waits):  # let the engine come some way
                num_steps = harness.engine.stats().num_steps
                while harness.engine.stats().num_steps == num_steps and not sink.has_ended:
                    time.sleep(0.0005)
            harness.engine.cancel(request_id)

    clients = [threading.Thread(target=client, args=(plan,)) for plan in plans]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(WAIT_S)
    survivor = harness.submit("survivor", b"hi")
    for sink in harness.sinks.values():
        sink.wait()
    harness.engine.stop()
    harness.check_at_rest()
    ends = [sink.end for request_id, sink in harness.sinks.items() if request_id != "survivor"]
    assert {type(end) for end in ends} <= {Cancelled, Finished}
    assert sum(end == Cancelled() for end in ends) > 250
    assert survivor.token_ids == greedy_answer(b"hi", 5)
