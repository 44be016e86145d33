"""What clients of the engine get, step by step, without a thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from layerscale_core.engine import (
    Cancelled,
    Finished,
    FinishReason,
    PromptScored,
    Request,
    SamplingParams,
    TokensGenerated,
    Usage,
)
from layerscale_core.errors import ContextLengthError, InvalidRequestError, NoBurstSlotsError, QueueFullError
from layerscale_core.specs import Priority, RunningSequence, ScheduledTokens, TokenBudget
from tests.support.engine_harness import PAGE_SIZE, EngineHarness, RecordingObserver, make_harness
from tests.support.fake_executor import PRINTABLE, greedy_answer
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.recording_sink import RecordingSink

EOS = ByteTokenizer.EOS_ID


@pytest.fixture
def harness() -> Iterator[EngineHarness]:
    harness = make_harness()
    yield harness
    harness.check_at_rest()


@pytest.mark.parametrize("prompt_len", [1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 16, 17, 40])
@pytest.mark.parametrize("max_tokens", [1, PAGE_SIZE, PAGE_SIZE + 1, 15])
def test_a_greedy_answer_is_the_model_s(harness: EngineHarness, prompt_len: int, max_tokens: int) -> None:
    prompt = bytes(range(prompt_len))
    sink = harness.submit("a", prompt, max_tokens)
    harness.run()
    assert sink.token_ids == greedy_answer(prompt, max_tokens)
    assert sink.text == bytes(sink.token_ids).decode()
    assert sink.finished == Finished(FinishReason.LENGTH, Usage(prompt_len, max_tokens))
    assert [len(event.token_ids) for event in sink.events[:-1] if isinstance(event, TokensGenerated)] == [
        1
    ] * max_tokens


@pytest.mark.parametrize("max_tokens_per_step", [1, 2, 3, 4, 5, 7, 16, 64])
def test_an_answer_is_the_same_alone_and_among_eight_with_its_prompt_cut_anywhere(max_tokens_per_step: int) -> None:
    prompts = {
        f"r{number}": bytes((7 * number + index) % 256 for index in range(3 * number + 1)) for number in range(9)
    }
    harness = make_harness(max_running=9, max_tokens_per_step=max_tokens_per_step)
    for request_id, prompt in prompts.items():
        harness.submit(request_id, prompt, max_tokens=12)
    harness.run()
    harness.check_at_rest()
    for request_id, prompt in prompts.items():
        assert harness.sinks[request_id].token_ids == greedy_answer(prompt, 12)
    if max_tokens_per_step == 16:
        assert any(len(batch) == 9 for batch in harness.executor.batches), "they never ran together"


def test_a_seeded_answer_is_the_same_alone_and_in_company() -> None:
    answers = []
    for company in (0, 5):
        harness = make_harness(max_tokens_per_step=6 + company)
        for number in range(company):
            harness.submit(f"other{number}", b"neighbour", 20, temperature=1.0, seed=number)
        sink = harness.submit("a", b"the one", 20, temperature=1.5, seed=42, top_p=0.9)
        harness.run()
        harness.check_at_rest()
        answers.append(sink.token_ids)
    assert answers[0] == answers[1] != greedy_answer(b"the one", 20)


def test_the_end_of_sequence_token_stops_and_is_not_shown() -> None:
    alphabet = (*PRINTABLE[:3], EOS)
    harness = make_harness(alphabet=alphabet)
    sink = harness.submit("a", b"hi", 50)
    harness.run()
    answer = greedy_answer(b"hi", 50, alphabet)
    shown = answer[: answer.index(EOS)]
    assert sink.token_ids == shown
    assert sink.finished == Finished(FinishReason.STOP, Usage(2, len(shown) + 1))


def test_ignore_eos_goes_on_and_a_stop_token_of_the_request_stops() -> None:
    alphabet = (*PRINTABLE[:3], EOS)
    harness = make_harness(alphabet=alphabet)
    goes_on = harness.submit("a", b"hi", 20, ignore_eos=True)
    stops = harness.submit("b", b"hi", 20, ignore_eos=True, stop_token_ids=frozenset({PRINTABLE[1]}))
    harness.run()
    answer = greedy_answer(b"hi", 20, alphabet)
    assert EOS in answer
    assert goes_on.token_ids == answer
    assert stops.token_ids == answer[: answer.index(PRINTABLE[1])]
    assert stops.finished.reason is FinishReason.STOP


@pytest.mark.parametrize("num_tokens", [1, 2, 5])
def test_a_stop_text_ends_the_answer_before_it(harness: EngineHarness, num_tokens: int) -> None:
    answer = bytes(greedy_answer(b"hi", 20)).decode()
    stop = answer[3 : 3 + num_tokens]
    assert answer.index(stop) == 3
    sink = harness.submit("a", b"hi", 20, stop=(stop, "\x00 never said"))
    harness.run()
    assert sink.text == answer[:3]
    assert sink.finished == Finished(FinishReason.STOP, Usage(2, 3 + num_tokens), "", stop)


def test_text_held_back_for_a_stop_text_is_shown_when_the_answer_ends_without_it(harness: EngineHarness) -> None:
    answer = bytes(greedy_answer(b"hi", 6)).decode()
    sink = harness.submit("a", b"hi", 6, stop=(answer[4:] + "\x00",))
    harness.run()
    assert sink.finished == Finished(FinishReason.LENGTH, Usage(2, 6), answer[4:])
    assert sink.text == answer


@pytest.mark.parametrize(("prompt_len", "expected"), [(40, 24), (62, 2), (63, 1)])
def test_an_answer_is_cut_at_the_context_window(harness: EngineHarness, prompt_len: int, expected: int) -> None:
    sink = harness.submit("a", bytes(prompt_len), 1000)
    harness.run()
    assert sink.finished == Finished(FinishReason.LENGTH, Usage(prompt_len, expected))


@pytest.mark.parametrize("prompt_len", [64, 65, 1000])
def test_a_prompt_without_room_for_an_answer_is_refused(harness: EngineHarness, prompt_len: int) -> None:
    with pytest.raises(ContextLengthError) as refusal:
        harness.submit("a", bytes(prompt_len))
    assert (refusal.value.prompt_len, refusal.value.max_context_len) == (prompt_len, 64)


def test_what_the_pool_can_never_hold_is_refused_and_what_fills_it_runs() -> None:
    harness = make_harness(num_pages=3, max_context_len=64)
    with pytest.raises(NoBurstSlotsError):
        harness.submit("a", bytes(8), 6)  # the 6th token is never computed: 13 tokens in the pool
    sink = harness.submit("b", bytes(8), 5)
    harness.run()
    harness.check_at_rest()
    assert sink.finished.usage.completion_tokens == 5


@pytest.mark.parametrize("prompt_len", [1, 2, 12, 13, 40, 64])
def test_scoring_gives_one_logprob_per_prompt_token_and_ends(prompt_len: int) -> None:
    harness = make_harness()
    prompt = bytes(range(100, 100 + prompt_len))
    sink = harness.submit("a", prompt, 0, prompt_logprobs=1)
    harness.run()
    harness.check_at_rest()
    scored, finished = sink.events
    assert finished == Finished(FinishReason.LENGTH, Usage(prompt_len, 0))
    assert isinstance(scored, PromptScored)
    assert scored.logprobs[0] is None
    for index, logprob in enumerate(scored.logprobs[1:], start=1):
        assert logprob is not None
        assert logprob.token_id == prompt[index]
        assert [token_id for token_id, _ in logprob.top] == greedy_answer(prompt[:index], 1)


def test_a_prompt_is_scored_once_before_the_first_token(harness: EngineHarness) -> None:
    sinks = [harness.submit(f"r{number}", bytes(range(30, 60)), 3, prompt_logprobs=0) for number in range(3)]
    harness.run()
    for sink in sinks:
        assert [type(event) for event in sink.events] == [PromptScored, *[TokensGenerated] * 3, Finished]
        assert len(sink.prompt_scores[0].logprobs) == 30
        assert sink.token_ids == greedy_answer(bytes(range(30, 60)), 3)


@pytest.mark.parametrize("num_top", [None, 0, 3])
def test_logprobs_come_with_each_token_when_asked_for(harness: EngineHarness, num_top: int | None) -> None:
    sink = harness.submit("a", b"hi", 4, logprobs=num_top)
    harness.run()
    if num_top is None:
        assert sink.logprobs == []
        return
    assert [logprob.token_id for logprob in sink.logprobs] == sink.token_ids
    assert all(len(logprob.top) == num_top for logprob in sink.logprobs)
    if num_top:
        assert [logprob.top[0] for logprob in sink.logprobs] == [
            (each.token_id, each.logprob) for each in sink.logprobs
        ]


def test_admission_is_first_come_first_served_even_where_a_later_one_would_fit() -> None:
    harness = make_harness(num_pages=8)
    first = harness.submit("first", bytes(8), 9)  # 4 pages
    large = harness.submit("large", bytes(16), 5)  # 5 pages
    small = harness.submit("small", bytes(1), 1)
    harness.engine.step()
    assert harness.engine.stats().num_running == 1
    while not large.has_ended:
        harness.engine.step()
        if not first.has_ended:
            assert not small.events
    harness.run()
    harness.check_at_rest()


def test_no_more_sequences_run_than_allowed() -> None:
    harness = make_harness(max_running=3)
    for number in range(10):
        harness.submit(f"r{number}", b"hi", 3 + number % 4)
    while harness.engine.step():
        assert harness.engine.stats().num_running <= 3
    harness.check_at_rest()
    assert max(len(batch) for batch in harness.executor.batches) == 3


def test_waiting_requests_are_bounded_and_a_place_opens_when_one_is_admitted() -> None:
    harness = make_harness(max_waiting=3, max_running=1)
    for number in range(3):
        harness.engine.check_accepting()
        harness.submit(f"r{number}", b"hi")
    with pytest.raises(QueueFullError) as refusal:
        harness.submit("refused", b"hi")
    assert refusal.value.retry_after_s == 1
    with pytest.raises(QueueFullError):
        harness.engine.check_accepting()
    harness.engine.step()
    harness.submit("accepted", b"hi")
    harness.run()
    harness.check_at_rest()
    assert list(harness.sinks) == ["r0", "r1", "r2", "accepted"]


def test_waiting_prompt_tokens_are_bounded() -> None:
    harness = make_harness(max_waiting_prompt_tokens=100, max_running=1)
    harness.submit("a", bytes(60))
    harness.submit("b", bytes(39))
    with pytest.raises(QueueFullError):
        harness.submit("c", bytes(2))
    harness.submit("d", bytes(1))
    with pytest.raises(QueueFullError):
        harness.engine.check_accepting()
    assert harness.engine.stats().num_waiting_prompt_tokens == 100
    harness.run()
    harness.check_at_rest()
    assert harness.engine.stats().num_waiting_prompt_tokens == 0


@pytest.mark.parametrize(("waited_s", "advice"), [(0.2, 1), (3.2, 4), (500.0, 10)])
def test_a_refusal_advises_to_wait_as_long_as_the_last_one_admitted_but_not_for_ever(
    waited_s: float, advice: int
) -> None:
    harness = make_harness(max_waiting=1, max_running=1)
    harness.submit("a", b"hi", 9)
    harness.clock.now += waited_s
    harness.engine.step()
    harness.submit("b", b"hi")
    with pytest.raises(QueueFullError) as refusal:
        harness.submit("c", b"hi")
    assert refusal.value.retry_after_s == advice


def test_an_id_is_unique_among_the_living_and_free_afterwards(harness: EngineHarness) -> None:
    harness.submit("a", b"hi")
    with pytest.raises(InvalidRequestError, match="in use"):
        harness.engine.submit(Request("a", (1,), SamplingParams(1)), RecordingSink())
    harness.run()
    harness.submit("a", b"hi")
    harness.run()


def test_a_sink_may_submit_under_the_id_that_just_ended_and_may_cancel(harness: EngineHarness) -> None:
    second = RecordingSink()

    def resubmit(event: object) -> None:
        if isinstance(event, Finished):
            harness.engine.submit(Request("a", (1, 2), SamplingParams(20)), second)
            harness.engine.cancel("a")

    harness.engine.submit(Request("a", (1,), SamplingParams(1)), resubmit)
    harness.run()
    assert second.events == [Cancelled()]


@pytest.mark.parametrize("num_steps", range(9))
def test_a_cancelled_request_ends_before_the_next_step_at_every_phase(num_steps: int) -> None:
    harness = make_harness(max_running=2, max_tokens_per_step=6)
    neighbour = harness.submit("neighbour", b"neighbour", 12)
    sink = harness.submit("a", bytes(20), 4)  # queued, then 5 steps of prefill, then decoding
    for _ in range(num_steps):
        harness.engine.step()
    assert not sink.has_ended
    num_events = len(sink.events)
    harness.engine.cancel("a")
    harness.engine.cancel("a")
    harness.engine.step()
    assert sink.events[num_events:] == [Cancelled()]
    harness.engine.cancel("a")
    harness.run()
    harness.check_at_rest()
    assert neighbour.token_ids == greedy_answer(b"neighbour", 12)


def test_a_cancelled_request_leaves_the_queue_and_its_place() -> None:
    harness = make_harness(max_running=1, max_waiting=2)
    harness.submit("running", b"hi", 6)
    harness.engine.step()
    harness.submit("a", b"hi")
    last = harness.submit("b", b"hi")
    harness.engine.cancel("a")
    harness.engine.step()
    harness.submit("c", b"hi")
    harness.run()
    harness.check_at_rest()
    assert harness.sinks["a"].events == [Cancelled()]
    assert last.token_ids == greedy_answer(b"hi", 5)


def test_cancelling_what_is_unknown_changes_nothing(harness: EngineHarness) -> None:
    harness.engine.cancel("nobody")
    assert not harness.engine.step()


def test_a_lower_priority_still_advances_beside_endless_interactive_work() -> None:
    harness = make_harness(max_running=4, max_tokens_per_step=8)
    background = harness.submit("background", bytes(40), 4, priority=Priority.FLASH)
    number = 0
    while not background.has_ended:
        if harness.engine.stats().num_waiting == 0:
            harness.submit(f"r{number}", bytes(30), 3)
            number += 1
        harness.engine.step()
        assert number < 60, "it starves"
    harness.run()
    harness.check_at_rest()
    assert background.token_ids == greedy_answer(bytes(40), 4)


class TurnsPolicy:
    """Lets one sequence at a time advance by one token, in turn, and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[list[RunningSequence]] = []

    def plan(self, running: Sequence[RunningSequence], budget: TokenBudget) -> list[ScheduledTokens]:
        self.seen.append(list(running))
        return [ScheduledTokens(running[len(self.seen) % len(running)].sequence_id, 1)]


def test_a_policy_sees_what_each_sequence_needs_and_how_long_it_waited() -> None:
    policy = TurnsPolicy()
    harness = make_harness(policy=policy)
    harness.submit("a", b"abc", 2)
    harness.submit("b", b"d", 3, priority=Priority.FLASH, prompt_logprobs=0)
    for _ in range(5):  # b, a, b, a, b
        harness.engine.step()
    rows = [[(each.num_uncomputed, each.is_decoding, each.steps_waited) for each in running] for running in policy.seen]
    assert rows == [
        [(3, False, 0), (1, False, 0)],
        [(3, False, 1), (1, True, 0)],
        [(2, False, 0), (1, True, 1)],
        [(2, False, 1), (1, True, 0)],
        [(1, False, 0), (1, True, 1)],
    ]
    first, second = policy.seen[0]
    assert (first.sequence_id, second.sequence_id) == (0, 1)
    assert (first.priority, second.priority) == (Priority.INTERACTIVE, Priority.FLASH)
    assert [each.wants_prompt_logits for each in policy.seen[0] + policy.seen[1]] == [False, True, False, False]
    harness.run()
    harness.check_at_rest()


def test_counts_tokens_steps_and_pages(harness: EngineHarness) -> None:
    harness.submit("a", bytes(20), 3)
    harness.submit("b", b"hi", 2)
    harness.engine.step()
    stats = harness.engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_prompt_tokens) == (2, 0, 16)
    assert stats.num_generated_tokens == 1
    assert stats.pool.total_pages - stats.pool.free_pages == 5
    assert stats.healthy
    assert stats.has_work
    num_steps = 1 + harness.run()
    stats = harness.engine.stats()
    assert (stats.num_prompt_tokens, stats.num_generated_tokens) == (22, 5)
    assert (stats.num_steps, stats.num_failed_steps) == (num_steps, 0)
    assert not stats.has_work


def test_progress_is_dated_from_the_last_step_or_the_end_of_idleness(harness: EngineHarness) -> None:
    harness.submit("a", b"hi", 1)
    harness.run()
    assert harness.engine.stats().last_progress == 100
    harness.clock.now = 5000
    harness.submit("b", b"hi", 2)
    assert harness.engine.stats().last_progress == 5000
    harness.clock.now = 5001
    harness.submit("c", b"hi", 2)
    assert harness.engine.stats().last_progress == 5000
    harness.run()
    assert harness.engine.stats().last_progress == 5001


def test_the_observer_sees_steps_and_requests() -> None:
    observer = RecordingObserver()
    harness = make_harness(observer=observer, max_running=1)
    harness.submit("a", bytes(20), 3)
    harness.submit("b", b"hi", 9)
    harness.clock.now = 102  # a was queued for 2 s
    for _ in range(4):  # prefill, prefill and first token, second, third
        harness.executor.before_step = lambda batch: setattr(harness.clock, "now", harness.clock.now + 1)
        harness.engine.step()
    harness.engine.cancel("b")
    harness.run()
    assert [(step.num_seqs, step.num_prefill_tokens, step.num_decode_tokens) for step in observer.steps] == [
        (1, 16, 0),
        (1, 4, 0),
        (1, 0, 1),
        (1, 0, 1),
    ]
    assert [step.duration_s for step in observer.steps] == [1, 1, 1, 1]
    first, second = observer.requests
    assert (first.queue_s, first.ttft_s, first.tpot_s) == (2, 4, 1)
    assert (first.prompt_tokens, first.completion_tokens) == (20, 3)
    assert first.end == harness.sinks["a"].end
    assert (second.queue_s, second.ttft_s, second.tpot_s, second.end) == (None, None, None, Cancelled())
