"""Scheduler policy: which sequences advance in the next step, and by how many tokens."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Priority(enum.IntEnum):
    """Classes of work, most urgent first. Lower classes still advance: nothing starves."""

    INTERACTIVE = 0
    INGESTION = 1
    FLASH = 2


@dataclass(frozen=True, slots=True)
class RunningSequence:
    """What a policy sees of an admitted sequence.

    Attributes:
        sequence_id: the engine's number for it, ascending in order of admission.
        num_uncomputed: tokens known and not yet in the KV pool: the rest of the prompt in prefill; while decoding 1,
            and more where those behind the sampled one were known without sampling. Logits are wanted of the last.
        is_decoding: its prompt is in the pool.
        wants_prompt_logits: every prompt token's logits are wanted (each costs a row of the vocabulary's size).
        steps_waited: steps since it last advanced.
    """

    sequence_id: int
    priority: Priority
    num_uncomputed: int
    is_decoding: bool
    wants_prompt_logits: bool
    steps_waited: int


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """The limits of one step.

    Attributes:
        max_tokens: most tokens the step computes.
        max_logits: most rows of logits it produces.
    """

    max_tokens: int
    max_logits: int


@dataclass(frozen=True, slots=True)
class ScheduledTokens:
    """A policy's decision for one sequence: compute its next ``num_tokens`` uncomputed tokens."""

    sequence_id: int
    num_tokens: int


class SchedulerPolicy(Protocol):
    """Decides steps. Plain Python on integers, no device, no clock."""

    def plan(self, running: Sequence[RunningSequence], budget: TokenBudget) -> list[ScheduledTokens]:
        """Choose the next step's work. What it leaves of the budget may be used for drafts.

        Args:
            running: admitted sequences with uncomputed tokens, in order of admission; may be empty.

        Returns:
            Each sequence at most once, ``1 <= num_tokens <= num_uncomputed``, within the budget. Not empty when
            ``running`` is not, and every sequence advances within a bounded number of steps.
        """
        ...
