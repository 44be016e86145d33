"""The fair policy: within budget, never idle, nobody starves, whatever arrives."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.engine.scheduler import FairPolicy, water_fill
from layerscale_core.specs import Priority, RunningSequence, ScheduledTokens, SchedulerPolicy, TokenBudget

ROOMY = TokenBudget(max_tokens=64, max_logits=64)


def prompt(
    sequence_id: int,
    num_uncomputed: int,
    *,
    priority: Priority = Priority.INTERACTIVE,
    scored: bool = False,
    steps_waited: int = 0,
) -> RunningSequence:
    return RunningSequence(
        sequence_id,
        priority,
        num_uncomputed,
        is_decoding=False,
        wants_prompt_logits=scored,
        steps_waited=steps_waited,
    )


def decoder(
    sequence_id: int, num_uncomputed: int = 1, *, priority: Priority = Priority.INTERACTIVE, steps_waited: int = 0
) -> RunningSequence:
    """A sequence that decodes; with more than one token uncomputed, those behind the sampled one were forced."""
    return RunningSequence(
        sequence_id, priority, num_uncomputed, is_decoding=True, wants_prompt_logits=False, steps_waited=steps_waited
    )


def plan(running: Sequence[RunningSequence], budget: TokenBudget = ROOMY) -> dict[int, int]:
    scheduled = FairPolicy().plan(running, budget)
    check_promises(running, budget, scheduled)
    return {item.sequence_id: item.num_tokens for item in scheduled}


def num_logits(sequence: RunningSequence, num_tokens: int) -> int:
    return num_tokens if sequence.wants_prompt_logits else int(num_tokens == sequence.num_uncomputed)


def check_promises(running: Sequence[RunningSequence], budget: TokenBudget, plan: Sequence[ScheduledTokens]) -> None:
    by_id = {sequence.sequence_id: sequence for sequence in running}
    assert bool(plan) == bool(running)
    assert len({item.sequence_id for item in plan}) == len(plan)
    assert all(1 <= item.num_tokens <= by_id[item.sequence_id].num_uncomputed for item in plan)
    assert sum(item.num_tokens for item in plan) <= budget.max_tokens
    assert sum(num_logits(by_id[item.sequence_id], item.num_tokens) for item in plan) <= budget.max_logits


prompts = st.builds(
    prompt,
    sequence_id=st.just(0),
    num_uncomputed=st.integers(1, 60),
    priority=st.sampled_from(Priority),
    scored=st.booleans(),
    steps_waited=st.integers(0, 12),
)
decoders = st.builds(
    decoder,
    sequence_id=st.just(0),
    num_uncomputed=st.integers(1, 6),
    priority=st.sampled_from(Priority),
    steps_waited=st.integers(0, 12),
)
batches = st.lists(prompts | decoders, max_size=12).map(
    lambda sequences: [dataclasses.replace(each, sequence_id=index * 3) for index, each in enumerate(sequences)]
)
budgets = st.builds(TokenBudget, max_tokens=st.integers(1, 80), max_logits=st.integers(1, 40))


def test_implements_the_spec() -> None:
    policy: SchedulerPolicy = FairPolicy()
    assert policy.plan([], ROOMY) == []


@given(batches, budgets)
@settings(max_examples=500, deadline=None)
def test_every_plan_keeps_the_promises_and_is_reproducible(running: list[RunningSequence], budget: TokenBudget) -> None:
    first = FairPolicy().plan(running, budget)
    check_promises(running, budget, first)
    assert first == FairPolicy().plan(list(running), budget)
    assert [item.sequence_id for item in first] == sorted(item.sequence_id for item in first)


@given(batches, st.integers(1, 80))
@settings(max_examples=200, deadline=None)
def test_no_token_of_the_budget_is_left_while_somebody_could_use_it(
    running: list[RunningSequence], max_tokens: int
) -> None:
    granted = plan(running, TokenBudget(max_tokens, max_logits=10_000))
    assert sum(granted.values()) == min(max_tokens, sum(sequence.num_uncomputed for sequence in running))


@given(batches, budgets)
@settings(max_examples=200, deadline=None)
def test_everyone_who_decodes_in_the_most_urgent_class_advances_if_the_budget_allows(
    running: list[RunningSequence], budget: TokenBudget
) -> None:
    granted = plan(running, budget)
    most_urgent = min((each.priority for each in running), default=None)
    urgent = [each for each in running if (each.is_decoding and each.priority == most_urgent) or each.steps_waited >= 8]
    if len(urgent) <= min(budget.max_tokens, budget.max_logits):
        assert all(each.sequence_id in granted for each in urgent)


@given(
    arrivals=st.lists(st.lists(prompts, max_size=4), max_size=40),
    budget=st.builds(TokenBudget, max_tokens=st.integers(1, 12), max_logits=st.integers(1, 6)),
    max_running=st.integers(1, 10),
)
@settings(max_examples=150, deadline=None)
def test_nobody_waits_longer_than_the_stated_bound(
    arrivals: list[list[RunningSequence]], budget: TokenBudget, max_running: int
) -> None:
    policy, bound = FairPolicy(), 8 + -(-max_running // min(budget.max_tokens, budget.max_logits))
    waiting = [each for group in arrivals for each in group]
    running: list[RunningSequence] = []
    for number in range(80):
        while waiting and len(running) < max_running:  # whoever leaves is replaced at once
            running.append(dataclasses.replace(waiting.pop(0), sequence_id=number * 100 + len(running), steps_waited=0))
        plan = {item.sequence_id: item.num_tokens for item in policy.plan(running, budget)}
        survivors = []
        for each in running:
            num_tokens = plan.get(each.sequence_id, 0)
            if num_tokens == 0:
                survivors.append(dataclasses.replace(each, steps_waited=each.steps_waited + 1))
            elif num_tokens < each.num_uncomputed:
                survivors.append(
                    dataclasses.replace(each, num_uncomputed=each.num_uncomputed - num_tokens, steps_waited=0)
                )
            elif each.sequence_id % 3:  # it decodes from now on, for ever; the others leave
                survivors.append(decoder(each.sequence_id, priority=each.priority))
        running = survivors
        assert all(each.steps_waited < bound for each in running)


def test_a_short_prompt_finishes_beside_a_long_one_and_does_not_stop_it() -> None:
    assert plan([prompt(0, 5000), prompt(1, 10)]) == {0: 54, 1: 10}


def test_long_prompts_get_equal_parts_and_the_first_the_odd_token() -> None:
    assert plan([prompt(0, 500), prompt(1, 900), prompt(2, 500)]) == {0: 22, 1: 21, 2: 21}


def test_decoders_come_before_prompts() -> None:
    assert plan([prompt(0, 500), *(decoder(number) for number in range(1, 61))])[0] == 4


@pytest.mark.parametrize("lower", [Priority.INGESTION, Priority.FLASH])
def test_decoders_of_a_lower_class_wait_while_the_budget_is_short(lower: Priority) -> None:
    background = [decoder(number, priority=lower) for number in range(20)]
    asked = [decoder(number) for number in range(20, 30)]
    assert set(plan([*background, *asked], TokenBudget(10, 10))) == set(range(20, 30))
    assert len(plan([*background, *asked], TokenBudget(64, 64))) == 30, "no token is left unused"


def test_decoders_of_a_lower_class_that_waited_long_advance() -> None:
    overdue = decoder(0, priority=Priority.FLASH, steps_waited=8)
    assert 0 in plan([overdue, *(decoder(number) for number in range(1, 11))], TokenBudget(10, 10))


def test_a_lower_class_decodes_at_once_where_no_other_has_work() -> None:
    background = [decoder(number, priority=Priority.FLASH) for number in range(3)]
    assert len(plan([*background, prompt(3, 500, priority=Priority.FLASH)], TokenBudget(8, 3))) == 4


def test_the_last_token_of_a_prompt_gets_its_row_before_background_decoders() -> None:
    background = [decoder(number, priority=Priority.FLASH) for number in range(20)]
    assert plan([*background, prompt(20, 5)], TokenBudget(max_tokens=64, max_logits=4))[20] == 5


def test_prompts_wait_while_decoders_fill_the_budget_but_not_for_ever() -> None:
    decoding = [decoder(number) for number in range(1, 65)]
    assert 0 not in plan([prompt(0, 500, steps_waited=7), *decoding])
    assert plan([prompt(0, 500, steps_waited=8), *decoding])[0] == 1


def test_more_decoders_than_the_budget_take_turns() -> None:
    policy, waited = FairPolicy(), dict.fromkeys(range(7), 0)
    turns: Counter[int] = Counter()
    for _ in range(7 * 5):
        running = [decoder(number, steps_waited=steps) for number, steps in waited.items()]
        granted = {item.sequence_id for item in policy.plan(running, TokenBudget(3, 3))}
        turns.update(granted)
        waited = {number: 0 if number in granted else steps + 1 for number, steps in waited.items()}
    assert set(turns.values()) == {3 * 5}


@pytest.mark.parametrize("lower", [Priority.INGESTION, Priority.FLASH])
def test_a_lower_class_keeps_a_bounded_share(lower: Priority) -> None:
    assert plan([prompt(0, 5000), prompt(1, 5000, priority=lower)]) == {0: 56, 1: 8}


def test_each_class_leaves_a_share_to_each_lower_one() -> None:
    running = [prompt(number, 5000, priority=priority) for number, priority in enumerate(Priority)]
    assert plan(running) == {0: 48, 1: 8, 2: 8}


def test_a_lower_class_gets_what_the_higher_ones_do_not_need() -> None:
    assert plan([prompt(0, 10), prompt(1, 5000, priority=Priority.FLASH)]) == {0: 10, 1: 54}


def test_a_scored_prompt_is_bounded_by_the_logits_and_stops_nobody() -> None:
    budget = TokenBudget(max_tokens=64, max_logits=8)
    assert plan([prompt(0, 5000, scored=True), prompt(1, 40), decoder(2)], budget) == {0: 6, 1: 40, 2: 1}


def test_scored_prompts_share_the_logits() -> None:
    budget = TokenBudget(max_tokens=64, max_logits=9)
    assert plan([prompt(0, 500, scored=True), prompt(1, 2, scored=True), prompt(2, 500, scored=True)], budget) == {
        0: 4,
        1: 2,
        2: 3,
    }


def test_a_prompt_without_a_row_for_its_last_token_stops_one_short() -> None:
    assert plan([decoder(0), prompt(1, 10)], TokenBudget(max_tokens=64, max_logits=1)) == {0: 1, 1: 9}


@given(st.integers(0, 200), st.lists(st.integers(0, 60), max_size=12))
@settings(max_examples=300, deadline=None)
def test_water_fill_is_max_min_fair(amount: int, needs: list[int]) -> None:
    shares = water_fill(amount, needs)
    assert sum(shares) == min(amount, sum(needs))
    assert all(0 <= share <= need for share, need in zip(shares, needs, strict=True))
    unmet = [share for share, need in zip(shares, needs, strict=True) if share < need]
    assert not unmet or max(shares) <= min(unmet) + 1
    equal_needs = {need: [share for share, other in zip(shares, needs, strict=True) if other == need] for need in needs}
    assert all(same == sorted(same, reverse=True) for same in equal_needs.values()), "the earlier come first"


def test_forced_tokens_are_computed_together_where_there_is_room() -> None:
    assert plan([decoder(0, 5), decoder(1)], TokenBudget(16, 8)) == {0: 5, 1: 1}


def test_forced_tokens_do_not_take_a_neighbours_token() -> None:
    assert plan([decoder(0, 5), decoder(1), decoder(2)], TokenBudget(4, 8)) == {0: 2, 1: 1, 2: 1}
