"""The prefix cache as clients meet it: what is reused, what never is, who waits for whom, and why it was missed."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest
from numpy.typing import NDArray

from layerscale_core.engine import Failed, PromptScored
from layerscale_core.engine.copy_on_write import copy_shared_pages
from layerscale_core.engine.kv_pool import PagedKVPool
from layerscale_core.engine.plan import ScheduledSequence
from layerscale_core.engine.request import Request
from layerscale_core.engine.sampler import find_likeliest
from layerscale_core.engine.sampling_params import SamplingParams
from layerscale_core.engine.sequence import Admission, LiveSequence
from layerscale_core.engine.step_builder import StepBuilder
from layerscale_core.specs import MissReason, PageTable, PrefixMiss, Priority
from tests.support.engine_harness import PAGE_SIZE, EngineHarness, RecordingObserver, make_harness
from tests.support.fake_executor import FakeExecutor, greedy_answer
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.recording_sink import RecordingSink

PROMPT = bytes(range(30))


def finish(harness: EngineHarness, *sinks: RecordingSink) -> list[int]:
    """Run to the end; the cached tokens of each."""
    harness.run()
    harness.check_at_rest()
    return [sink.finished.usage.cached_tokens for sink in sinks]


def num_computed(harness: EngineHarness) -> int:
    return harness.engine.stats().num_prompt_tokens


@pytest.mark.parametrize("max_running", [1, 2, 50])
def test_fifty_requests_with_one_long_prompt_compute_it_once(max_running: int) -> None:
    prompt = bytes(number * 7 % 251 for number in range(1500))
    harness = make_harness(
        num_pages=20_000,
        max_context_len=2048,
        max_running=max_running,
        max_tokens_per_step=512,
        max_waiting_prompt_tokens=50 * 1500,
    )
    sinks = [harness.submit(f"r{number}", prompt, 3) for number in range(50)]
    harness.run()
    harness.check_at_rest()
    reused = 1499 // PAGE_SIZE * PAGE_SIZE
    assert [sink.finished.usage.cached_tokens for sink in sinks] == [0] + [reused] * 49
    assert num_computed(harness) == 1500 + 49 * (1500 - reused)
    assert harness.engine.stats().num_cached_tokens == 49 * reused
    assert {tuple(sink.token_ids) for sink in sinks} == {tuple(greedy_answer(prompt, 3))}


@pytest.mark.parametrize("num_pages", [18, 40, 400])
def test_answers_are_the_same_with_the_cache_and_without(num_pages: int) -> None:
    heads = [bytes(range(number, number + 17)) for number in (0, 3, 3)]
    prompts = [head + bytes([tail]) * (tail % 7) for head, tail in itertools.product(heads, range(12))]
    answers = []
    for shares_prefixes in (True, False):
        harness = make_harness(num_pages=num_pages, shares_prefixes=shares_prefixes)
        sinks = [harness.submit(f"r{number}", prompt, 6) for number, prompt in enumerate(prompts)]
        cached = finish(harness, *sinks)
        assert any(cached) == shares_prefixes
        answers.append([sink.token_ids for sink in sinks])
    assert answers[0] == answers[1] == [greedy_answer(prompt, 6) for prompt in prompts]


@pytest.mark.parametrize(
    ("prompt_len", "expected"),
    [
        (1, 0),
        (PAGE_SIZE, 0),
        (PAGE_SIZE + 1, PAGE_SIZE),
        (2 * PAGE_SIZE, PAGE_SIZE),
        (2 * PAGE_SIZE + 1, 2 * PAGE_SIZE),
    ],
)
def test_whole_pages_are_reused_and_the_last_token_is_computed(prompt_len: int, expected: int) -> None:
    harness = make_harness()
    prompt = PROMPT[:prompt_len]
    first, second = harness.submit("a", prompt), harness.submit("b", prompt)
    assert finish(harness, first, second) == [0, expected]
    assert first.token_ids == second.token_ids == greedy_answer(prompt, 5)


def test_a_conversation_reuses_its_own_answers() -> None:
    harness = make_harness()
    first = harness.submit("a", PROMPT, 11)
    harness.run()
    history = [*PROMPT, *first.token_ids]
    second = harness.submit("b", [*history, 1, 2, 3], 4)
    assert finish(harness, second) == [40]  # all but the answer's last token, which was never computed
    assert second.token_ids == greedy_answer([*history, 1, 2, 3], 4)


def test_a_prompt_is_reused_while_the_first_answer_is_still_being_written() -> None:
    harness = make_harness()
    first = harness.submit("a", PROMPT, 30)
    for _ in range(5):
        harness.engine.step()
    assert first.token_ids
    assert not first.has_ended
    assert finish(harness, harness.submit("b", PROMPT)) == [28]


def test_namespaces_share_nothing() -> None:
    observer = RecordingObserver()
    harness = make_harness(observer=observer)
    sinks = [harness.submit(f"r{number}", PROMPT, cache_key=key) for number, key in enumerate(["me", "you", "me"])]
    assert finish(harness, *sinks) == [0, 0, 28]


def misses(*prompts: bytes, num_pages: int = 64, **options: object) -> list[PrefixMiss | None]:
    """Why each prompt, asked after the one before has ended, was not found as a whole."""
    observer = RecordingObserver()
    harness = make_harness(num_pages=num_pages, observer=observer)
    for number, prompt in enumerate(prompts):
        harness.submit(f"r{number}", prompt, 1, **options)  # type: ignore[arg-type]
        harness.run()
    harness.check_at_rest()
    return [metrics.prefix_miss for metrics in observer.requests]


def test_a_miss_says_where_and_why() -> None:
    changed = bytearray(PROMPT)
    changed[13] = 255
    assert misses(b"abc") == [PrefixMiss(0, MissReason.TOO_SHORT)]
    assert misses(PROMPT) == [PrefixMiss(0, MissReason.NEVER_SEEN)]
    assert misses(PROMPT, PROMPT)[1] is None
    assert misses(PROMPT, bytes(changed))[1] == PrefixMiss(13, MissReason.DIVERGED)
    assert misses(PROMPT, bytes([0, 1, 9, 9, 9]))[1] == PrefixMiss(2, MissReason.DIVERGED)
    assert misses(PROMPT[:16], PROMPT)[1] == PrefixMiss(16, MissReason.NEVER_SEEN)
    assert misses(PROMPT, bytes(30), PROMPT, num_pages=8)[2] == PrefixMiss(0, MissReason.EVICTED)
    assert misses(PROMPT, PROMPT, prompt_logprobs=0)[1] == PrefixMiss(0, MissReason.BYPASSED)


def test_a_miss_for_being_somebody_else_is_told_from_one_for_being_new() -> None:
    observer = RecordingObserver()
    harness = make_harness(observer=observer)
    for key in ("me", "you"):
        harness.submit(key, PROMPT, cache_key=key)
        harness.run()
    assert observer.requests[1].prefix_miss == PrefixMiss(0, MissReason.OTHER_NAMESPACE)


def test_a_miss_is_in_the_debug_log_without_a_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    harness = make_harness()
    harness.submit("a", b"secret words")
    harness.run()
    assert "request a: 0 of 12 prompt tokens cached, the prefix ends at token 0: never_seen" in caplog.messages
    assert "secret" not in caplog.text
    assert "115" not in caplog.text  # the token of "s"


def test_scoring_a_prompt_computes_all_of_it() -> None:
    harness = make_harness()
    harness.submit("a", PROMPT)
    harness.run()
    scored = harness.submit("b", PROMPT, 2, prompt_logprobs=0)
    assert finish(harness, scored) == [0]
    assert num_computed(harness) == 2 * len(PROMPT)
    [event] = [event for event in scored.events if isinstance(event, PromptScored)]
    assert len(event.logprobs) == len(PROMPT)


def test_what_produced_bad_numbers_is_never_reused() -> None:
    harness = make_harness(max_tokens_per_step=8)

    def spoil(_batch: object, logits: NDArray[np.float32]) -> None:
        logits[:] = np.nan

    harness.executor.after_step = spoil
    failed = harness.submit("a", PROMPT)
    harness.run()
    assert isinstance(failed.end, Failed)
    harness.executor.after_step = lambda *_: None
    assert finish(harness, harness.submit("b", PROMPT)) == [0]


def test_what_a_sequence_published_is_withdrawn_when_it_fails_later() -> None:
    harness = make_harness()
    failed = harness.submit("a", PROMPT, 20)
    while not failed.token_ids:
        harness.engine.step()

    def fail(_batch: object) -> None:
        raise RuntimeError("injected")

    harness.executor.before_step = fail
    harness.engine.step()
    assert isinstance(failed.end, Failed)
    harness.executor.before_step = lambda _: None
    assert finish(harness, harness.submit("b", PROMPT)) == [0]


def test_failing_leaves_the_prefix_that_somebody_else_computed() -> None:
    harness = make_harness()
    harness.submit("a", PROMPT[:16], 1)
    harness.run()

    def fail(_batch: object) -> None:
        raise RuntimeError("injected")

    harness.executor.before_step = fail
    harness.submit("b", PROMPT)
    harness.engine.step()
    harness.executor.before_step = lambda _: None
    assert finish(harness, harness.submit("c", PROMPT)) == [16]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_cancelled_answer_is_kept_once_its_numbers_are_known_to_be_good(phase: str) -> None:
    harness = make_harness(max_tokens_per_step=16)
    cancelled = harness.submit("a", PROMPT, 30)
    harness.engine.step()
    while phase == "decode" and not cancelled.token_ids:
        harness.engine.step()
    harness.engine.cancel("a")
    assert finish(harness, harness.submit("b", PROMPT)) == [28 if phase == "decode" else 0]


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_who_waits_for_a_prompt_goes_on_when_that_one_ends_early(end: str) -> None:
    harness = make_harness(max_tokens_per_step=16)
    harness.submit("a", PROMPT)
    waiting = harness.submit("b", PROMPT)
    harness.engine.step()
    assert harness.executor.batches == [[16]], "the second does not compute what the first is computing"
    if end == "cancel":
        harness.engine.cancel("a")
    else:
        harness.executor.before_step = lambda _: (_ for _ in ()).throw(RuntimeError("injected"))
        harness.engine.step()
        harness.executor.before_step = lambda _: None
    assert finish(harness, waiting) == [0]
    assert waiting.token_ids == greedy_answer(PROMPT, 5)


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        (PROMPT, bytes(reversed(PROMPT)), ""),  # nothing in common
        (PROMPT[:8] + bytes(50), PROMPT, ""),  # less in common than it would wait for
        (PROMPT, PROMPT, "somebody else"),
    ],
)
def test_nobody_waits_for_what_does_not_pay(first: bytes, second: bytes, key: str) -> None:
    harness = make_harness(max_tokens_per_step=16)
    harness.submit("a", first)
    harness.submit("b", second, cache_key=key)
    harness.engine.step()
    assert len(harness.executor.batches[0]) == 2


@pytest.mark.parametrize(("first", "second"), [*itertools.product(Priority, repeat=2)])
def test_who_is_waited_for_is_as_urgent_as_who_waits(first: Priority, second: Priority) -> None:
    def steps_until_answered(priority: Priority) -> int:
        harness = make_harness(max_tokens_per_step=8)
        harness.submit("rival", bytes(range(100, 160)), priority=second)
        harness.submit("a", PROMPT, priority=priority)
        waiting = harness.submit("b", PROMPT, priority=second)
        num_steps = 0
        while not waiting.events:
            harness.engine.step()
            num_steps += 1
        assert finish(harness, waiting) == [28]
        return num_steps

    assert steps_until_answered(first) == steps_until_answered(min(first, second))


def test_cached_pages_give_way_to_whoever_needs_them() -> None:
    harness = make_harness(num_pages=16)
    for number in range(10):
        sink = harness.submit(f"r{number}", bytes([number]) * 40, 24)
        harness.run()
        assert sink.token_ids == greedy_answer(bytes([number]) * 40, 24)
    assert harness.engine.stats().pool.cached_pages == 15  # every answer needs 16, the last is not full
    harness.check_at_rest()


def test_what_was_used_least_recently_is_evicted_first() -> None:
    harness = make_harness(num_pages=12)
    old, new = bytes([1]) * 13, bytes([2]) * 13
    for number, prompt in enumerate((old, new, old)):  # three full pages each
        harness.submit(f"r{number}", prompt, 1)
        harness.run()
    harness.submit("big", bytes([3]) * 29, 1)  # eight pages: two of the six cached ones have to go
    harness.run()
    assert finish(harness, harness.submit("old", old, 1)) == [12]
    assert finish(harness, harness.submit("new", new, 1)) == [4]


def forked(pool: PagedKVPool, parent: PageTable, prompt: bytes, name: str) -> LiveSequence:
    """A running sequence whose first tokens another one computed."""
    request = Request(name, tuple(prompt), SamplingParams(4, temperature=0.0))
    sequence = LiveSequence(request, RecordingSink(), ByteTokenizer(), 64, 0.0)
    table = pool.fork(parent, sequence.max_computed)
    sequence.admission = Admission(len(name), table, 0.0)
    sequence.begin(table.num_tokens, None)
    return sequence


@pytest.mark.parametrize("prefix_len", [PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE + 2])
def test_forks_go_on_by_themselves_from_shared_pages(prefix_len: int) -> None:
    pool, executor = PagedKVPool(32, PAGE_SIZE), FakeExecutor(32, PAGE_SIZE)
    builder = StepBuilder(pool, 64, 8)
    prefix = PROMPT[:prefix_len]
    request = Request("parent", tuple(prefix), SamplingParams(6, temperature=0.0))
    parent = LiveSequence(request, RecordingSink(), ByteTokenizer(), 64, 0.0)
    parent.admission = Admission(0, pool.admit(parent.max_computed), 0.0)
    parent.begin(0, None)

    def step(*sequences: LiveSequence) -> None:
        copy_shared_pages(pool, executor, sequences)
        scheduled = [ScheduledSequence(each, each.num_uncomputed, 1, each.is_decoding) for each in sequences]
        logits = executor.step(builder.build(scheduled))
        for row, item in enumerate(scheduled):
            item.sequence.advance(item.num_tokens, logits, find_likeliest(logits), range(row, row + 1), now=0.0)
        pool.check_integrity()

    step(parent)
    forks = [forked(pool, parent.admitted.table, prefix + bytes([number] * 3), "f" * number) for number in (1, 2, 3)]
    pool.check_integrity()
    step(forks[0])
    step(parent, *forks[1:])
    step(parent, *forks)
    assert parent.tokens[prefix_len:] == greedy_answer(prefix, 3)
    for number, fork in enumerate(forks, 1):
        prompt = prefix + bytes([number] * 3)
        assert fork.tokens[len(prompt) :] == greedy_answer(prompt, 2)
    for sequence in (parent, *forks):
        pool.release(sequence.admitted.table)
    pool.check_integrity()
    assert pool.stats().free_pages == 32
