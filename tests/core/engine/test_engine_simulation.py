"""Random schedules on the real engine in virtual time: pages balance, everyone ends once, nobody starves."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from layerscale_core.engine import Cancelled, Event, Failed, Finished, FinishReason
from layerscale_core.errors import NumericalError, QueueFullError, StepError
from layerscale_core.specs import Priority, StepBatch
from tests.support.engine_harness import EngineHarness, make_harness
from tests.support.fake_executor import PRINTABLE, greedy_answer
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.recording_sink import RecordingSink

ALPHABETS = ((*PRINTABLE, ByteTokenizer.EOS_ID), (*b"abc", ByteTokenizer.EOS_ID), tuple(b"ab"))
"""What simulated models say: those of few words repeat themselves, so that drafts come true more often."""


@dataclass
class Wish:
    """What one simulated client asked for."""

    prompt: bytes
    max_tokens: int
    is_greedy: bool
    cache_key: str


HEADS = (b"", b"what many prompts", b"what many begin", bytes(range(16)))
"""How simulated prompts begin, so that they share prefixes of several lengths."""


class Simulation:
    """One random schedule: arrivals, cancellations, failing steps and bad logits, from one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        chance = self.chance
        self.alphabet = chance.choice(ALPHABETS)
        self.harness = make_harness(
            num_pages=chance.choice([8, 30, 60]),
            max_context_len=24,
            max_running=chance.choice([2, 4, 8]),
            max_tokens_per_step=chance.choice([4, 16, 40]),
            max_logits_per_step=chance.choice([2, 6, 20]),
            max_waiting=chance.choice([3, 10]),
            alphabet=self.alphabet,
        )
        self.wishes: dict[str, Wish] = {}
        self.has_faults = chance.random() < 0.4
        self.num_faults = 0
        self.num_refused = 0
        self.harness.executor.before_step = self._before_step
        self.harness.executor.after_step = self._after_step

    def run(self) -> None:
        for _ in range(self.chance.randrange(1, 6)):
            self._act()
            self.harness.clock.now += 1
            self.harness.engine.step()
            self.harness.pool.check_integrity()
            self.harness.pool.check_prefixes()
        self.harness.run(max_steps=1000)
        self.harness.check_at_rest()
        for request_id, sink in self.harness.sinks.items():
            self._check(self.wishes[request_id], sink)
        if not self.num_faults:
            assert not any(isinstance(sink.end, Failed) for sink in self.harness.sinks.values())

    def _act(self) -> None:
        for _ in range(self.chance.choice([0, 2, 4, 6])):
            self._submit()
        if self.wishes and self.chance.random() < 0.3:
            self.harness.engine.cancel(self.chance.choice(list(self.wishes)))

    def _submit(self) -> None:
        chance, request_id = self.chance, f"r{len(self.wishes)}"
        prompt_len = chance.randrange(1, 19)
        prompt = (chance.choice(HEADS) + chance.randbytes(18))[:prompt_len]
        max_tokens, is_greedy = chance.randrange(0, min(25 - prompt_len, 10)), chance.random() < 0.7
        wish = Wish(prompt, max_tokens, is_greedy, chance.choice(["", "", "key"]))
        sampling: dict[str, object] = {} if wish.is_greedy else {"temperature": 1.0, "seed": 1, "top_k": 5}
        if wish.max_tokens == 0 or chance.random() < 0.1:
            sampling["prompt_logprobs"] = 0
        try:
            self.harness.submit(
                request_id,
                wish.prompt,
                wish.max_tokens,
                priority=chance.choice(list(Priority)),
                cache_key=wish.cache_key,
                **sampling,
            )
        except QueueFullError:
            self.num_refused += 1
        else:
            self.wishes[request_id] = wish

    def _before_step(self, batch: StepBatch) -> None:
        if self.wishes and self.chance.random() < 0.05:
            self.harness.engine.cancel(self.chance.choice(list(self.wishes)))
        if self.has_faults and self.chance.random() < 0.05:
            self.num_faults += 1
            raise RuntimeError("injected")

    def _after_step(self, batch: StepBatch, logits: NDArray[np.float32]) -> None:
        if self.has_faults and len(logits) and self.chance.random() < 0.05:
            self.num_faults += 1
            logits[self.chance.randrange(len(logits)), 0] = np.nan

    def _check(self, wish: Wish, sink: RecordingSink) -> None:
        expected = greedy_answer(wish.prompt, wish.max_tokens, self.alphabet) if wish.is_greedy else sink.token_ids
        stops = ByteTokenizer.EOS_ID in expected
        if stops:
            expected = expected[: expected.index(ByteTokenizer.EOS_ID)]
        match sink.end:
            case Finished(reason, usage):
                assert sink.token_ids == expected
                if wish.is_greedy:
                    assert reason is (FinishReason.STOP if stops else FinishReason.LENGTH)
                assert usage.prompt_tokens == len(wish.prompt)
                assert usage.completion_tokens == len(sink.token_ids) + (reason is FinishReason.STOP)
            case Failed(error):
                assert isinstance(error, StepError | NumericalError)
                assert sink.token_ids == expected[: len(sink.token_ids)]
            case Cancelled():
                assert sink.token_ids == expected[: len(sink.token_ids)]


NUM_SCHEDULES, NUM_PARTS = 10_000, 20


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_random_schedules(part: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # thousands of injected failures would be formatted
    ends: list[Event] = []
    num_refused = num_cached_tokens = num_drafted_tokens = num_accepted_tokens = 0
    for seed in range(part, NUM_SCHEDULES, NUM_PARTS):
        simulation = Simulation(seed)
        simulation.run()
        ends += [sink.end for sink in simulation.harness.sinks.values()]
        num_refused += simulation.num_refused
        stats = simulation.harness.engine.stats()
        num_cached_tokens += stats.num_cached_tokens
        num_drafted_tokens += stats.num_drafted_tokens
        num_accepted_tokens += stats.num_accepted_tokens
    for kind in (Finished, Failed, Cancelled):
        assert sum(isinstance(end, kind) for end in ends) >= 100, f"hardly any {kind}: the schedules test nothing"
    assert num_refused >= 100
    assert num_cached_tokens >= 1000
    assert num_drafted_tokens > num_accepted_tokens >= 50


def cancelled_harness(seed: int) -> tuple[EngineHarness, RecordingSink, list[Event]]:
    """A victim among neighbours, cancelled at a random moment: before, in or after a forward pass."""
    chance = random.Random(seed)
    harness = make_harness(max_running=chance.choice([1, 3]), max_tokens_per_step=chance.choice([2, 7, 16]))
    for number in range(chance.randrange(3)):
        harness.submit(f"neighbour{number}", chance.randbytes(5), 6)
    victim = harness.submit("victim", chance.randbytes(chance.randrange(1, 30)), chance.randrange(2, 20))
    told_before_cancel: list[Event] = []
    moment = chance.randrange(0, 30)

    def cancel(*_: object) -> None:
        if not victim.has_ended and not told_before_cancel:
            told_before_cancel.extend([*victim.events, Cancelled()])
            harness.engine.cancel("victim")

    place = chance.choice(["before the step", "in the step", "after the step"])
    for number in range(1000):
        if number == moment or victim.has_ended:
            break
        harness.engine.step()
    if place == "before the step":
        cancel()
    elif place == "in the step":
        harness.executor.before_step = cancel
    else:
        harness.executor.after_step = cancel
    harness.engine.step()
    harness.pool.check_integrity()
    harness.executor.before_step = harness.executor.after_step = lambda *_: None
    return harness, victim, told_before_cancel


@pytest.mark.parametrize("part", range(4))
def test_a_thousand_cancellations_at_random_phases(part: int) -> None:
    num_cancelled = 0
    seed = part * 1_000_000
    while num_cancelled < 250:
        harness, victim, told_before_cancel = cancelled_harness(seed)
        seed += 1
        num_cancelled += bool(told_before_cancel)
        harness.engine.step()
        if told_before_cancel:
            assert victim.has_ended, "the cancellation took more than a step"
        harness.run()
        harness.check_at_rest()
        for request_id, sink in harness.sinks.items():
            assert request_id == "victim" or isinstance(sink.end, Finished)


@pytest.mark.parametrize("seed", range(10))
def test_nobody_starves_under_adversarial_arrivals(seed: int) -> None:
    """More work arrives than can ever be computed, and the meek still end within a bounded number of steps."""
    chance = random.Random(seed)
    harness = make_harness(num_pages=40, max_running=6, max_tokens_per_step=4, max_logits_per_step=3)
    meek = [
        harness.submit("long", bytes(30), 5, priority=Priority.FLASH),
        harness.submit("scored", bytes(30), 0, prompt_logprobs=0, priority=Priority.INGESTION),
        harness.submit("short", bytes(2), 2, priority=Priority.FLASH),
    ]
    # Each of the at most 35 tokens is computed at least every 8 + ceil(6 / 3) steps.
    for number in range(35 * 10):
        if harness.engine.stats().num_waiting < 4:
            harness.submit(f"r{number}", bytes(chance.randrange(1, 30)), chance.randrange(1, 8))
        harness.engine.step()
    assert all(sink.has_ended for sink in meek)
    harness.run()
    harness.check_at_rest()
