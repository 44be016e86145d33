"""Whatever breaks, it costs the requests concerned and nobody else, and each of them is told once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from layerscale_core.engine import Cancelled, Event, Failed, PromptScored, Request, SamplingParams, TokensGenerated
from layerscale_core.engine.detokenizer import IncrementalDetokenizer
from layerscale_core.errors import NumericalError, RequestError, ShuttingDownError, StepError
from layerscale_core.specs import PageTable, RunningSequence, ScheduledTokens, StepBatch, TokenBudget
from tests.support.engine_harness import RecordingObserver, make_harness
from tests.support.fake_executor import greedy_answer
from tests.support.recording_sink import RecordingSink

VICTIM = 250
"""A token that only the request to be hurt has in its prompt."""


def error_of(sink: RecordingSink) -> RequestError:
    assert isinstance(sink.end, Failed), sink.end
    return sink.end.error


def fail_when(executor_sees: Callable[[StepBatch], bool]) -> Callable[[StepBatch], None]:
    def before_step(batch: StepBatch) -> None:
        if executor_sees(batch):
            raise StepError("the device fell off the bus")

    return before_step


def spoil_rows_of_victim(value: float) -> Callable[[StepBatch, NDArray[np.float32]], None]:
    """The logits of a chunk that holds the victim's token become ``value``."""

    def after_step(batch: StepBatch, logits: NDArray[np.float32]) -> None:
        for index in range(batch.num_seqs):
            first, stop = batch.cu_seqlens[index], batch.cu_seqlens[index + 1]
            if VICTIM in batch.token_ids[first:stop]:
                logits[(batch.logits_indices >= first) & (batch.logits_indices < stop), 3] = value

    return after_step


def test_a_failed_step_ends_its_batch_with_an_id_that_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    harness = make_harness(max_running=2)
    doomed = [harness.submit(f"r{number}", b"hi") for number in range(2)]
    waiting = harness.submit("later", b"hi")
    harness.executor.before_step = fail_when(lambda batch: True)
    harness.engine.step()
    harness.executor.before_step = lambda batch: None
    harness.run()
    harness.check_at_rest()
    for sink in doomed:
        error = error_of(sink)
        assert isinstance(error, StepError)
        error_id = str(error).partition("error id ")[2].rstrip(")")
        assert len(error_id) == 12
        assert error_id in caplog.text
        assert "fell off the bus" not in str(error)
    assert "fell off the bus" in caplog.text
    assert waiting.token_ids == greedy_answer(b"hi", 5)


def test_a_failed_step_spares_those_that_were_not_in_its_batch() -> None:
    harness = make_harness(max_tokens_per_step=2)
    sinks = [harness.submit(f"r{number}", bytes([VICTIM] if number == 0 else [number]), 4) for number in range(4)]
    harness.executor.before_step = fail_when(lambda batch: VICTIM in batch.token_ids)
    harness.run()
    harness.check_at_rest()
    hurt = [sink for sink in sinks if isinstance(sink.end, Failed)]
    assert 1 <= len(hurt) <= 2
    assert sinks[0] in hurt
    for number, sink in enumerate(sinks):
        if sink not in hurt:
            assert sink.token_ids == greedy_answer(bytes([number]), 4)


@pytest.mark.parametrize(
    "error", [RuntimeError("odd"), MemoryError(), AssertionError(), KeyError("x"), StepError("no")]
)
def test_any_exception_of_a_step_is_contained(error: Exception) -> None:
    def before_step(batch: StepBatch) -> None:
        raise error

    harness = make_harness()
    sink = harness.submit("a", b"hi")
    harness.executor.before_step = before_step
    harness.run()
    harness.check_at_rest()
    assert isinstance(error_of(sink), StepError)


def test_repeated_failures_make_the_engine_unhealthy_until_a_step_succeeds() -> None:
    harness = make_harness()
    harness.executor.before_step = fail_when(lambda batch: True)
    for number in range(3):
        assert harness.engine.stats().healthy
        harness.submit(f"r{number}", b"hi")
        harness.run()
    assert not harness.engine.stats().healthy
    assert harness.engine.stats().num_failed_steps == 3
    harness.executor.before_step = lambda batch: None
    harness.submit("good", b"hi")
    harness.run()
    harness.check_at_rest()
    assert harness.engine.stats().healthy


def test_wrongly_many_logits_fail_the_step() -> None:
    harness = make_harness()
    sink = harness.submit("a", b"hi")
    step = harness.executor.step
    harness.executor.step = lambda batch: np.repeat(step(batch), 2, axis=0)  # type: ignore[method-assign]
    harness.run()
    harness.check_at_rest()
    assert isinstance(error_of(sink), StepError)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0}, {"prompt_logprobs": 1}, {"logprobs": 2}])
def test_logits_that_are_not_finite_end_their_sequence_alone(value: float, sampling: dict[str, object]) -> None:
    harness = make_harness()
    victim = harness.submit("victim", bytes([1, 2, VICTIM]), **sampling)  # type: ignore[arg-type]
    neighbours = [harness.submit(f"r{number}", bytes([number]), 6) for number in range(3)]
    harness.executor.after_step = spoil_rows_of_victim(value)
    harness.run()
    harness.check_at_rest()
    assert isinstance(error_of(victim), NumericalError)
    assert len(victim.events) == 1
    for number, sink in enumerate(neighbours):
        assert sink.token_ids == greedy_answer(bytes([number]), 6)
    assert harness.engine.stats().healthy


def test_bad_rows_of_a_prompt_that_is_scored_end_it_before_it_is_scored() -> None:
    harness = make_harness(max_tokens_per_step=4)
    sink = harness.submit("a", bytes([VICTIM, *range(20)]), 3, prompt_logprobs=0)
    harness.executor.after_step = spoil_rows_of_victim(np.nan)
    harness.run()
    harness.check_at_rest()
    assert [type(event) for event in sink.events] == [Failed]


def test_an_exception_while_text_is_made_ends_that_sequence_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    victim_token = greedy_answer(b"victim", 3)[2]
    neighbour_tokens = greedy_answer(b"other", 5)
    assert victim_token not in neighbour_tokens
    push = IncrementalDetokenizer.push

    def fragile_push(self: IncrementalDetokenizer, token_id: int) -> str:
        if token_id == victim_token:
            raise ValueError("a hole in the vocabulary")
        return push(self, token_id)

    monkeypatch.setattr(IncrementalDetokenizer, "push", fragile_push)
    harness = make_harness()
    victim, neighbour = harness.submit("a", b"victim"), harness.submit("b", b"other")
    harness.run()
    harness.check_at_rest()
    assert [type(event) for event in victim.events] == [TokensGenerated, TokensGenerated, Failed]
    assert "hole" not in str(error_of(victim))
    assert neighbour.token_ids == neighbour_tokens


@pytest.mark.parametrize("fails_at", [PromptScored, TokensGenerated])
def test_a_sink_that_fails_loses_its_request_and_still_gets_the_end(
    fails_at: type[Event], caplog: pytest.LogCaptureFixture
) -> None:
    harness = make_harness()
    received: list[Event] = []

    def fragile(event: Event) -> None:
        received.append(event)
        if isinstance(event, fails_at):
            raise RuntimeError("the event loop is closed")

    harness.engine.submit(Request("fragile", (1, 2), SamplingParams(5, prompt_logprobs=0)), fragile)
    neighbour = harness.submit("b", b"other")
    harness.run()
    harness.check_at_rest()
    assert [isinstance(event, fails_at) for event in received].count(True) == 1
    assert isinstance(received[-1], Failed)
    assert sum(isinstance(event, Failed) for event in received) == 1
    assert neighbour.token_ids == greedy_answer(b"other", 5)
    assert "the sink of request fragile failed" in caplog.text


def test_a_sink_that_fails_at_the_end_changes_nothing_for_others() -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("gone")

    harness = make_harness()
    harness.engine.submit(Request("broken", (1, 2), SamplingParams(1)), broken)
    harness.engine.submit(Request("cancelled", (1, 2), SamplingParams(9)), broken)
    neighbour = harness.submit("b", b"other")
    harness.engine.cancel("cancelled")
    harness.run()
    harness.check_at_rest()
    assert neighbour.token_ids == greedy_answer(b"other", 5)


class BrokenPolicy:
    """Breaks one promise of the spec, then keeps them all."""

    def __init__(self, broken_plan: Callable[[Sequence[RunningSequence]], list[ScheduledTokens]]) -> None:
        self._broken_plan: Callable[[Sequence[RunningSequence]], list[ScheduledTokens]] | None = broken_plan

    def plan(self, running: Sequence[RunningSequence], budget: TokenBudget) -> list[ScheduledTokens]:
        if self._broken_plan is not None:
            broken_plan, self._broken_plan = self._broken_plan, None
            return broken_plan(running)
        return [ScheduledTokens(running[0].sequence_id, 1)]


def raise_error(running: Sequence[RunningSequence]) -> list[ScheduledTokens]:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "broken_plan",
    [
        raise_error,
        lambda running: [],
        lambda running: [ScheduledTokens(999, 1)],
        lambda running: [ScheduledTokens(running[0].sequence_id, 0)],
        lambda running: [ScheduledTokens(running[0].sequence_id, -1)],
        lambda running: [ScheduledTokens(running[0].sequence_id, running[0].num_uncomputed + 1)],
        lambda running: [ScheduledTokens(running[0].sequence_id, 1)] * 2,
        lambda running: [ScheduledTokens(each.sequence_id, each.num_uncomputed) for each in running],
        lambda running: [ScheduledTokens(running[-1].sequence_id, 13)],
    ],
    ids=["raises", "empty", "unknown", "none", "negative", "too many", "twice", "token budget", "logits budget"],
)
def test_a_policy_that_breaks_its_promise_is_not_followed(
    broken_plan: Callable[[Sequence[RunningSequence]], list[ScheduledTokens]],
) -> None:
    harness = make_harness(policy=BrokenPolicy(broken_plan), max_running=2)
    concerned = [harness.submit("a", bytes(8)), harness.submit("scored", bytes(14), 2, prompt_logprobs=0)]
    later = harness.submit("later", b"hi")
    harness.run()
    harness.check_at_rest()
    assert all(isinstance(error_of(sink), StepError) for sink in concerned)
    assert later.token_ids == greedy_answer(b"hi", 5)


class BrokenObserver(RecordingObserver):
    """Fails at everything."""

    def on_step(self, metrics: object) -> None:
        raise RuntimeError("no disk")

    def on_request_finished(self, metrics: object) -> None:
        raise RuntimeError("no disk")


def test_an_observer_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    harness = make_harness(observer=BrokenObserver())
    sinks = [harness.submit("a", b"hi"), harness.submit("b", b"hi")]
    harness.engine.cancel("b")
    harness.run()
    harness.check_at_rest()
    assert sinks[0].token_ids == greedy_answer(b"hi", 5)
    assert sinks[1].events == [Cancelled()]
    assert "the observer failed" in caplog.text


def test_no_token_left_to_sample_ends_the_request() -> None:
    everything = frozenset(range(258))
    harness = make_harness()
    sink = harness.submit("a", b"hi", 5, min_tokens=2, stop_token_ids=everything)
    harness.run()
    harness.check_at_rest()
    assert isinstance(error_of(sink), NumericalError)


def test_prompts_and_tokens_never_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    harness = make_harness()
    harness.submit("a", b"a secret prompt", stop=("a secret stop",))
    harness.engine.step()
    harness.executor.before_step = fail_when(lambda batch: True)
    harness.run()
    harness.check_at_rest()
    assert caplog.text
    assert "secret" not in caplog.text


def test_a_pool_that_breaks_stops_the_engine_and_everyone_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lose_count(table: PageTable) -> None:
        raise AssertionError("freed twice")

    harness = make_harness(max_running=2)
    monkeypatch.setattr(harness.pool, "release", lose_count)
    first, running, waiting = (harness.submit(f"r{number}", b"hi", 3 + number) for number in range(3))
    harness.engine.start()
    for sink in (first, running, waiting):
        sink.wait()
    harness.engine.stop()
    assert first.token_ids == greedy_answer(b"hi", 3)
    assert isinstance(error_of(running), StepError)
    assert isinstance(error_of(waiting), StepError)
    assert not harness.engine.stats().healthy
    assert not harness.engine.stats().has_work
    assert "the engine broke down" in caplog.text
    with pytest.raises(ShuttingDownError):
        harness.submit("late", b"hi")


def test_a_pool_that_refuses_for_no_reason_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = make_harness()
    monkeypatch.setattr(harness.pool, "can_admit", lambda max_tokens: False)
    sink = harness.submit("a", b"hi")
    harness.engine.start()
    assert isinstance(sink.wait(), Failed)
    harness.engine.stop()
    assert not harness.engine.stats().healthy
