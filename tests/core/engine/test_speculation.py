"""Drafts change when tokens come, and nothing else: answers, events and pages are the same with them and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerscale_core.constraints import ConstraintCompiler, Grammar
from layerscale_core.engine import Event, Failed, Finished, Request, SamplingParams
from layerscale_core.specs import Priority, StepBatch
from tests.support.engine_harness import PAGE_SIZE, EngineHarness, make_harness
from tests.support.fake_executor import greedy_answer
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.recording_sink import RecordingSink

REPETITIVE = tuple(b"ab")
"""A model that says nothing else soon finds itself in a cycle."""
LETTERS = (*b"abcd", ByteTokenizer.EOS_ID)
COMPILER = ConstraintCompiler(ByteTokenizer())
GRAMMARS = (None, Grammar.regex("(ab|cd|[a-d])*"), Grammar.regex("(abcdabcd|dcba)+"), Grammar.choice(["ab" * 30]))


def timed(harness: EngineHarness, per_token: float = 0.3) -> EngineHarness:
    """Have steps take time: a second, and so much more for each token after the first."""

    def tick(batch: StepBatch) -> None:
        harness.clock.now += 1 + per_token * (batch.num_tokens - 1)

    harness.executor.before_step = tick
    return harness


@dataclass(frozen=True)
class Wish:
    """What a client asks for, and after how many steps."""

    prompt: tuple[int, ...]
    sampling: dict[str, Any]
    grammar: Grammar | None
    priority: Priority
    after: int
    cancelled_after: int | None


samplings = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(15, 45),
        "temperature": st.sampled_from([0.0, 9.0]),
        "top_k": st.sampled_from([2, 3]),
        "seed": st.integers(0, 3),
    },
    optional={
        "frequency_penalty": st.just(0.1),
        "repetition_penalty": st.just(1.1),
        "logit_bias": st.just({ord("a"): 1.0}),
        "stop": st.sampled_from([("abab",), ("dd", "c")]),
        "stop_token_ids": st.just(frozenset({ord("d")})),
        "min_tokens": st.just(12),
        "ignore_eos": st.booleans(),
        "logprobs": st.integers(0, 2),
        "prompt_logprobs": st.just(0),
        "early_gap": st.sampled_from([0.1, 9.0]),
        "logit_gap": st.just(True),
    },
)
wishes = st.builds(
    Wish,
    prompt=st.lists(st.sampled_from(b"abcd"), min_size=1, max_size=17).map(tuple),
    sampling=samplings,
    grammar=st.sampled_from(GRAMMARS),
    priority=st.sampled_from(Priority),
    after=st.integers(0, 20),
    cancelled_after=st.none() | st.integers(0, 40),
)


@dataclass(frozen=True)
class World:
    """What requests are served by."""

    alphabet: Sequence[int]
    max_tokens_per_step: int
    max_logits_per_step: int

    def serve(self, wanted: Sequence[Wish], *, looks_up_prompts: bool) -> tuple[EngineHarness, list[list[Event]]]:
        """Serve everybody; returns what each was told. Cancellations are for those who draft alone."""
        limits = {"max_tokens_per_step": self.max_tokens_per_step, "max_logits_per_step": self.max_logits_per_step}
        harness = timed(make_harness(alphabet=self.alphabet, looks_up_prompts=looks_up_prompts, **limits), 0.0)
        told: list[list[Event]] = [[] for _ in wanted]
        for number in range(60):
            for index, wish in enumerate(wanted):
                if wish.after == number:
                    submit(harness, f"r{index}", wish, told[index])
                if wish.cancelled_after == number and looks_up_prompts:
                    harness.engine.cancel(f"r{index}")
            harness.engine.step()
            harness.pool.check_integrity()
            harness.pool.check_prefixes()
        harness.run()
        harness.check_at_rest()
        assert all(sum(batch) <= self.max_tokens_per_step for batch in harness.executor.batches)
        return harness, told


def submit(harness: EngineHarness, request_id: str, wish: Wish, told: list[Event]) -> None:
    sink = harness.sinks[request_id] = RecordingSink()
    sink.events = told
    constraint = None if wish.grammar is None else COMPILER.compile(wish.grammar)
    params = SamplingParams(**wish.sampling)
    harness.engine.submit(Request(request_id, wish.prompt, params, wish.priority, "", constraint), sink)


def comparable(events: list[Event]) -> list[object]:
    """How much was found in the prefix cache depends on who was faster; errors are not equal to themselves."""
    *before, end = events
    if isinstance(end, Failed):
        return [*before, str(end.error)]
    assert isinstance(end, Finished)
    return [*before, replace(end, usage=replace(end.usage, cached_tokens=0))]


@given(
    st.lists(wishes, min_size=1, max_size=5),
    st.builds(
        World,
        st.sampled_from([REPETITIVE, tuple(b"abc"), LETTERS]),
        st.sampled_from([3, 16, 60]),
        st.sampled_from([2, 9, 40]),
    ),
)
@settings(max_examples=120, deadline=None)
def test_clients_are_told_the_same(wanted: list[Wish], world: World) -> None:
    _, without = world.serve(wanted, looks_up_prompts=False)
    _, within = world.serve(wanted, looks_up_prompts=True)
    for wish, told, expected in zip(wanted, within, without, strict=True):
        if wish.cancelled_after is None:
            assert comparable(told) == comparable(expected)
        else:
            assert told[:-1] == expected[: len(told) - 1]


def answer(prompt: bytes, num_tokens: int, *, looks_up_prompts: bool = True, **world: Any) -> EngineHarness:
    """One greedy answer, checked; returns what it was made with."""
    alphabet = world.pop("alphabet", REPETITIVE)
    harness = timed(
        make_harness(alphabet=alphabet, max_context_len=1024, num_pages=256, looks_up_prompts=looks_up_prompts, **world)
    )
    sink = harness.submit("r", prompt, num_tokens, ignore_eos=True)
    harness.run()
    harness.check_at_rest()
    assert sink.token_ids == greedy_answer(prompt, num_tokens, alphabet)
    return harness


def test_an_answer_that_repeats_itself_takes_few_steps() -> None:
    without, within = answer(b"x", 200, looks_up_prompts=False), answer(b"x", 200)
    stats = within.engine.stats()
    assert without.engine.stats().num_drafted_tokens == 0
    assert stats.num_accepted_tokens >= 150
    assert stats.num_steps == 200 - stats.num_accepted_tokens
    assert stats.num_steps * 4 < without.engine.stats().num_steps
    assert within.clock.now - 100 < 0.5 * (without.clock.now - 100)


def test_an_answer_that_does_not_is_hardly_slowed_down() -> None:
    """Seven letters at random: what stood behind three of them before comes again one time in seven."""
    seconds, told = [], []
    for looks_up_prompts in (False, True):
        harness = timed(
            make_harness(
                alphabet=tuple(b"abcdefg"), max_context_len=1024, num_pages=256, looks_up_prompts=looks_up_prompts
            )
        )
        sink = harness.submit("r", b"abc", 900, temperature=100.0, top_k=7, seed=3)
        harness.run()
        seconds.append(harness.clock.now - 100)
        told.append(sink.events)
    assert told[0] == told[1]
    stats = harness.engine.stats()
    assert 30 >= stats.num_drafted_tokens > stats.num_accepted_tokens
    assert seconds[1] < 1.01 * seconds[0]


def test_where_further_tokens_are_as_dear_as_steps_there_are_next_to_none() -> None:
    harness = make_harness(alphabet=REPETITIVE, max_context_len=1024, num_pages=256)
    timed(harness, per_token=1.5)
    harness.submit("r", b"x", 600)
    harness.run()
    assert harness.clock.now - 100 < 1.6 * 600


@pytest.mark.parametrize(("max_tokens", "max_logits"), [(1, 12), (12, 1), (4, 12), (12, 3)])
def test_drafts_take_what_the_budget_leaves(max_tokens: int, max_logits: int) -> None:
    harness = answer(b"xyz", 100, max_tokens_per_step=max_tokens, max_logits_per_step=max_logits)
    longest = max(sum(batch) for batch in harness.executor.batches[3:])
    assert longest == min(max_tokens, max_logits)


def test_a_draft_ends_before_the_answer_and_before_a_stop() -> None:
    harness = timed(make_harness(alphabet=REPETITIVE))
    seen: list[int] = []
    harness.executor.after_step = lambda batch, logits: seen.extend(batch.token_ids.tolist())
    sink = harness.submit("r", b"cab!abcab!abcab", 40, stop_token_ids=frozenset(b"!"))
    harness.run()
    num_computed = sum(sum(batch) for batch in harness.executor.batches)
    assert len(sink.token_ids) == 40
    assert seen[15:].count(ord("!")) == 0
    stats = harness.engine.stats()
    assert num_computed - 15 == 39 + stats.num_drafted_tokens - stats.num_accepted_tokens


def test_steps_of_many_sequences_have_no_drafts() -> None:
    harness = timed(make_harness(alphabet=REPETITIVE, max_running=9, num_pages=128, max_tokens_per_step=64))
    for number in range(9):
        harness.submit(f"r{number}", b"ab%d" % number, 30)
    harness.run()
    assert harness.engine.stats().num_drafted_tokens == 0


def test_a_step_with_a_prompt_in_it_has_no_drafts() -> None:
    harness = timed(make_harness(alphabet=REPETITIVE, max_context_len=128))
    harness.submit("r", b"x", 100)
    for _ in range(12):
        harness.engine.step()
    assert harness.executor.batches[-1] == [12], "as long a draft as the logits allow"
    harness.submit("other", bytes(range(100)), 1)
    harness.engine.step()
    assert harness.executor.batches[-1] == [1, 15]


def test_logits_after_a_wrong_draft_are_not_looked_at() -> None:
    harness = timed(make_harness(alphabet=tuple(b"abc"), max_context_len=128))
    prompt, num_spoiled = b"bbcaabcacbacbbccaaababcacbbcab", 0

    def spoil(batch: StepBatch, logits: NDArray[np.float32]) -> None:
        nonlocal num_spoiled
        predicted = logits.argmax(axis=1).tolist()
        given = batch.token_ids[batch.logits_indices].tolist()
        wrong = next((row for row in range(1, len(given)) if predicted[row - 1] != given[row]), len(given))
        num_spoiled += len(given) - wrong
        logits[wrong:] = np.nan

    harness.executor.after_step = spoil
    sink = harness.submit("r", prompt, 60)
    harness.run()
    assert sink.token_ids == greedy_answer(prompt, 60, tuple(b"abc"))
    assert num_spoiled > 0


def test_what_came_before_a_failure_is_told() -> None:
    harness = timed(make_harness(alphabet=REPETITIVE))
    place = 40

    def spoil(batch: StepBatch, logits: NDArray[np.float32]) -> None:
        logits[batch.positions[batch.logits_indices] >= place] = np.nan

    harness.executor.after_step = spoil
    sink = harness.submit("r", b"x", 60)
    harness.run()
    harness.check_at_rest()
    assert isinstance(sink.end, Failed)
    assert sink.token_ids == greedy_answer(b"x", place, REPETITIVE)


@pytest.mark.parametrize("num_tokens", range(30, 30 + 2 * PAGE_SIZE))
def test_the_prefix_cache_has_what_came_true(num_tokens: int) -> None:
    """An answer's pages are reused by whoever goes on from it: the fake model reads every one of their tokens."""
    alphabet = tuple(b"abc")
    harness = timed(make_harness(alphabet=alphabet))
    first = harness.submit("first", b"ab", num_tokens)
    harness.run()
    conversation = [*b"ab", *first.token_ids]
    second = harness.submit("second", conversation, 15)
    harness.run()
    harness.check_at_rest()
    assert first.token_ids == greedy_answer(b"ab", num_tokens, alphabet)
    assert second.token_ids == greedy_answer(conversation, 15, alphabet)
    assert second.finished.usage.cached_tokens == (len(conversation) - 1) // PAGE_SIZE * PAGE_SIZE
    assert harness.engine.stats().num_accepted_tokens > 0
