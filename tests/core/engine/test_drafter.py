"""Drafts grow while they come true, and stop where they do not pay; what pays is measured."""

from __future__ import annotations

import pytest

from layerscale_core.engine.drafter import MAX_DRAFT_LEN, Drafter
from layerscale_core.engine.prompt_lookup import PromptLookup
from layerscale_core.engine.step_costs import StepCosts

CYCLE = [1, 2, 3, 4, 5] * 20


def drafter() -> Drafter:
    """One that always finds something to propose."""
    return Drafter(PromptLookup((), len(CYCLE)))


def drafts(under_test: Drafter, num_steps: int, share_accepted: float, price: float) -> list[int]:
    """The lengths of the drafts of so many steps, 0 where there was none."""
    lengths = []
    for _ in range(num_steps):
        num_drafted = len(under_test.propose(CYCLE, 100))
        lengths.append(num_drafted)
        if num_drafted:
            under_test.learn(num_drafted, int(num_drafted * share_accepted), lambda length: price)
    return lengths


def test_drafts_that_come_true_grow_to_the_longest() -> None:
    assert drafts(drafter(), 6, share_accepted=1.0, price=0.9) == [1, 3, 7, MAX_DRAFT_LEN, MAX_DRAFT_LEN, MAX_DRAFT_LEN]


def test_a_draft_is_no_longer_than_there_is_room() -> None:
    under_test = drafter()
    drafts(under_test, 5, share_accepted=1.0, price=0.0)
    assert len(under_test.propose(CYCLE, 4)) == 4


def test_drafts_that_do_not_come_true_become_rare() -> None:
    lengths = drafts(drafter(), 2000, share_accepted=0.0, price=0.3)
    assert sum(lengths[:100]) <= 6
    assert set(lengths[100:]) == {0, 1}
    assert sum(lengths[1000:]) <= 4, "tried every 256 steps at most"


def test_drafts_that_cost_nothing_never_stop() -> None:
    assert 0 not in drafts(drafter(), 50, share_accepted=0.0, price=0.0)


def test_what_half_comes_true_pays_at_a_low_price_alone() -> None:
    cheap, dear = drafter(), drafter()
    for under_test in (cheap, dear):
        drafts(under_test, 4, share_accepted=1.0, price=0.0)
    assert 0 not in drafts(cheap, 3, share_accepted=0.5, price=0.2)
    assert 0 in drafts(dear, 6, share_accepted=0.5, price=0.9)


def test_after_a_pause_one_token_that_comes_true_is_enough_to_go_on() -> None:
    under_test = drafter()
    drafts(under_test, 300, share_accepted=0.0, price=0.5)
    lengths = drafts(under_test, 600, share_accepted=1.0, price=0.5)
    first = next(index for index, length in enumerate(lengths) if length)
    assert lengths[first : first + 4] == [1, 3, 7, MAX_DRAFT_LEN]


@pytest.mark.parametrize("num_seqs", [1, 4])
def test_the_price_of_a_token_is_what_plain_steps_would_have_given_meanwhile(num_seqs: int) -> None:
    costs = StepCosts()
    for _ in range(5):
        costs.learn(num_seqs, 0, 0, 2.0)
    assert costs.knows(num_seqs)
    costs.learn(num_seqs, 7, 7 * num_seqs, 2.0 + 7 * num_seqs * 0.5)
    assert costs.price(num_seqs, 7) == pytest.approx(num_seqs * 0.5 / 2.0)
    assert costs.price(num_seqs, 15) == 0, "longer ones are yet to be tried"
    assert costs.price(num_seqs + 1, 7) == 0


def test_a_step_that_was_held_up_hardly_changes_the_price() -> None:
    costs = StepCosts()
    for _ in range(20):
        costs.learn(1, 0, 0, 2.0)
        costs.learn(1, 3, 3, 3.5)
    costs.learn(1, 0, 0, 1000.0)
    costs.learn(1, 3, 3, 1000.0)
    assert 0.05 <= costs.price(1, 3) <= 0.4


def test_without_a_clock_nothing_has_a_price() -> None:
    costs = StepCosts()
    for _ in range(5):
        costs.learn(1, 0, 0, 0.0)
    costs.learn(1, 3, 3, 0.0)
    assert costs.price(1, 3) == 0
