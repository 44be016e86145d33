"""The contract of a scheduler policy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from layerscale_core.specs import Priority, RunningSequence, ScheduledTokens, SchedulerPolicy, TokenBudget

BUDGETS = (TokenBudget(1, 1), TokenBudget(2, 1), TokenBudget(16, 2), TokenBudget(256, 32), TokenBudget(4, 4))

STARVATION_STEPS = 200
"""Far more steps than the suite's 24 sequences could need to advance in turn, one token a step."""


def num_logits(sequence: RunningSequence, num_tokens: int) -> int:
    """Rows of logits that a decision costs."""
    if sequence.wants_prompt_logits:
        return num_tokens
    return int(num_tokens == sequence.num_uncomputed)


class SchedulerPolicyContract:
    """Every promise of ``SchedulerPolicy``."""

    def make_policy(self) -> SchedulerPolicy:
        """The policy under test, as ``layerscale_make_scheduler_policy`` makes it."""
        raise NotImplementedError

    @pytest.fixture
    def policy(self) -> SchedulerPolicy:
        """The policy under test."""
        return self.make_policy()

    def test_nothing_running_gives_nothing_to_do(self, policy: SchedulerPolicy) -> None:
        """``running`` may be empty."""
        assert policy.plan([], TokenBudget(256, 32)) == []

    @pytest.mark.parametrize("seed", range(50))
    @pytest.mark.parametrize("budget", BUDGETS, ids=str)
    def test_every_decision_is_within_bounds(self, policy: SchedulerPolicy, budget: TokenBudget, seed: int) -> None:
        """Each sequence at most once, no more than it has and the budget allows; something, when there is something."""
        chance = random.Random(seed)  # noqa: S311 (a reproducible schedule, no secret)
        running = [_random_sequence(chance, sequence_id) for sequence_id in range(chance.randint(1, 24))]
        before = list(running)
        check_decisions(running, budget, policy.plan(running, budget))
        assert running == before, "running is the engine's, not the policy's to change"

    @pytest.mark.parametrize("budget", BUDGETS, ids=str)
    @pytest.mark.parametrize("seed", range(3))
    def test_nobody_starves_while_others_keep_arriving(
        self, policy: SchedulerPolicy, budget: TokenBudget, seed: int
    ) -> None:
        """Every sequence advances within a bounded number of steps, whatever its class and its neighbours."""
        chance = random.Random(seed)  # noqa: S311 (a reproducible schedule, no secret)
        running = [_random_sequence(chance, sequence_id) for sequence_id in range(24)]
        next_id = len(running)
        for _ in range(600):
            granted = check_decisions(running, budget, policy.plan(running, budget))
            running = [_advance(sequence, granted.get(sequence.sequence_id, 0), chance) for sequence in running]
            running = [sequence for sequence in running if sequence.num_uncomputed]
            while len(running) < 24:
                running.append(_random_sequence(chance, next_id))
                next_id += 1
            assert max(sequence.steps_waited for sequence in running) <= STARVATION_STEPS


def check_decisions(
    running: Sequence[RunningSequence], budget: TokenBudget, decisions: Sequence[ScheduledTokens]
) -> dict[int, int]:
    """Assert what holds of any plan; returns the granted tokens by sequence."""
    granted = {decision.sequence_id: decision.num_tokens for decision in decisions}
    by_id = {sequence.sequence_id: sequence for sequence in running}
    assert len(granted) == len(decisions), "a sequence is scheduled twice"
    assert granted.keys() <= by_id.keys(), "an unknown sequence is scheduled"
    assert bool(granted) == bool(running), "nothing is scheduled although something runs"
    assert all(1 <= count <= by_id[sequence_id].num_uncomputed for sequence_id, count in granted.items())
    assert sum(granted.values()) <= budget.max_tokens
    assert sum(num_logits(by_id[sequence_id], count) for sequence_id, count in granted.items()) <= budget.max_logits
    return granted


def _random_sequence(chance: random.Random, sequence_id: int) -> RunningSequence:
    is_decoding = chance.random() < 0.5
    return RunningSequence(
        sequence_id=sequence_id,
        priority=chance.choice(list(Priority)),
        num_uncomputed=chance.choice([1, 1, 5]) if is_decoding else chance.choice([1, 2, 30, 1000]),
        is_decoding=is_decoding,
        wants_prompt_logits=not is_decoding and chance.random() < 0.2,
        steps_waited=0,
    )


def _advance(sequence: RunningSequence, num_tokens: int, chance: random.Random) -> RunningSequence:
    """The sequence after a step: waiting, further in its prompt, decoding on, or finished (no uncomputed token)."""
    if num_tokens == 0:
        return replace(sequence, steps_waited=sequence.steps_waited + 1)
    rest = sequence.num_uncomputed - num_tokens
    if rest:
        return replace(sequence, num_uncomputed=rest, steps_waited=0)
    is_finished = chance.random() < 0.1
    return replace(
        sequence, num_uncomputed=int(not is_finished), is_decoding=True, wants_prompt_logits=False, steps_waited=0
    )
