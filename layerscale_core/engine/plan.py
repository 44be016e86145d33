"""One step's work: a scheduler policy's decisions, checked and bound to their sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.specs.scheduler import SchedulerPolicy, TokenBudget


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """A sequence of a step: its next ``num_tokens`` tokens are computed, the last ``num_logits`` of them give logits.

    Attributes:
        is_decoding: its prompt was in the pool before this step.
        draft: the last of the tokens, which are only guessed; all others are known.
    """

    sequence: LiveSequence
    num_tokens: int
    num_logits: int
    is_decoding: bool
    draft: tuple[int, ...] = ()


def plan_step(
    policy: SchedulerPolicy, running: Mapping[int, LiveSequence], budget: TokenBudget
) -> list[ScheduledSequence]:
    """Ask the policy which of the running sequences advance.

    Raises:
        ValueError: the policy breaks its promise; computing its plan could write into other sequences' slots.
        KeyError: it names a sequence that does not run.
    """
    decisions = policy.plan([sequence.view() for sequence in running.values()], budget)
    scheduled = []
    for decision in decisions:
        sequence = running[decision.sequence_id]
        num_logits = sequence.num_logits(decision.num_tokens)
        scheduled.append(ScheduledSequence(sequence, decision.num_tokens, num_logits, sequence.is_decoding))
    _check(scheduled, budget)
    for sequence in running.values():
        sequence.steps_waited += 1  # reset in those that advance
    return scheduled


def _check(scheduled: Sequence[ScheduledSequence], budget: TokenBudget) -> None:
    if not scheduled:
        raise ValueError("the scheduler policy lets every sequence wait")
    if len({item.sequence for item in scheduled}) < len(scheduled):
        raise ValueError("the scheduler policy scheduled a sequence twice")
    num_tokens = num_logits = 0
    for item in scheduled:
        if not 1 <= item.num_tokens <= item.sequence.num_uncomputed:
            raise ValueError("the scheduler policy scheduled tokens that are not there")
        num_tokens += item.num_tokens
        num_logits += item.num_logits
    if num_tokens > budget.max_tokens:
        raise ValueError("the scheduler policy exceeded the token budget")
    if num_logits > budget.max_logits:
        raise ValueError("the scheduler policy exceeded the logits budget")
