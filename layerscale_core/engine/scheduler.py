"""The default scheduler policy: decode first, the rest is shared, nobody waits for long."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

from layerscale_core.specs.scheduler import Priority, RunningSequence, ScheduledTokens, TokenBudget


class FairPolicy:
    """Chunked prefill under a token budget (arXiv:2403.02310); implements ``specs.SchedulerPolicy``.

    Where the budget is enough for everything, as it is while answers are generated and no prompts come, all is granted.
    Otherwise:

    1. Whoever decodes in the most urgent class that has work, or has waited ``max_steps_waited`` steps, gets one token:
       the longest waiting first, those that waited equally long in turn.
    2. All others share the rest of the budget: a class of priority leaves each lower class that has work at least one
       ``1 / lower_class_divisor`` of the tokens, and within a class short prompts finish while long ones get equal
       parts. Rows of logits go to the more urgent class first.

    A sequence advances at least every ``max_steps_waited + ceil(num_running / min(max_tokens, max_logits))`` steps,
    whatever arrives: once it is overdue, only those that waited as long come before it, and each of them comes once.
    """

    def __init__(self, max_steps_waited: int = 8, lower_class_divisor: int = 8) -> None:
        self._max_steps_waited = max_steps_waited
        self._lower_class_divisor = lower_class_divisor
        self._last_in_turn = -1

    def plan(self, running: Sequence[RunningSequence], budget: TokenBudget) -> list[ScheduledTokens]:
        """Choose the next step's work, in the order of ``running``."""
        if _fits(running, budget):
            return [ScheduledTokens(each.sequence_id, each.num_uncomputed) for each in running]
        ledger = _Ledger(budget)
        most_urgent = min((each.priority for each in running), default=None)
        is_urgent = [
            each.steps_waited >= self._max_steps_waited or (each.is_decoding and each.priority == most_urgent)
            for each in running
        ]
        for sequence in sorted(compress(running, is_urgent), key=self._turn):
            if ledger.grant_one(sequence):
                self._last_in_turn = sequence.sequence_id
        sharing = [each for each in running if ledger.rest(each)]
        if sharing and ledger.tokens_left:
            self._share(sharing, ledger)
        return [
            ScheduledTokens(sequence.sequence_id, ledger.granted[sequence.sequence_id])
            for sequence in running
            if sequence.sequence_id in ledger.granted
        ]

    def _turn(self, sequence: RunningSequence) -> tuple[int, bool, int]:
        """Sorts by waiting time, then cyclically from the one after the last that was served."""
        had_its_turn = sequence.sequence_id <= self._last_in_turn
        return -sequence.steps_waited, had_its_turn, sequence.sequence_id

    def _share(self, sharing: list[RunningSequence], ledger: _Ledger) -> None:
        guaranteed = ledger.tokens_left // self._lower_class_divisor
        classes: dict[Priority, list[RunningSequence]] = {}
        for sequence in sorted(sharing, key=lambda each: each.priority):
            classes.setdefault(sequence.priority, []).append(sequence)
        demand = {priority: sum(map(ledger.rest, members)) for priority, members in classes.items()}
        for priority, members in classes.items():
            kept_for_lower = sum(min(demand[lower], guaranteed) for lower in classes if lower > priority)
            shares = water_fill(ledger.tokens_left - kept_for_lower, ledger.affordable(members))
            for sequence, share in zip(members, shares, strict=True):
                ledger.grant(sequence, share)


def _fits(running: Sequence[RunningSequence], budget: TokenBudget) -> bool:
    """Whether one step can do all there is to do."""
    num_tokens = num_logits = 0
    for sequence in running:
        num_tokens += sequence.num_uncomputed
        num_logits += sequence.num_uncomputed if sequence.wants_prompt_logits else 1
    return num_tokens <= budget.max_tokens and num_logits <= budget.max_logits


class _Ledger:
    """What is left of a step's budget, and who got what."""

    def __init__(self, budget: TokenBudget) -> None:
        self.tokens_left = budget.max_tokens
        self.logits_left = budget.max_logits
        self.granted: dict[int, int] = {}

    def grant_one(self, sequence: RunningSequence) -> bool:
        """Grant a sequence its next token if the budget allows; returns whether it did."""
        needs_logits = sequence.wants_prompt_logits or sequence.num_uncomputed == 1
        allowed = self.tokens_left > 0 and (self.logits_left > 0 or not needs_logits)
        if allowed:
            self.grant(sequence, 1)
        return allowed

    def grant(self, sequence: RunningSequence, num_tokens: int) -> None:
        """Grant further tokens that the budget is known to allow."""
        if num_tokens == 0:
            return
        total = self.granted.get(sequence.sequence_id, 0) + num_tokens
        self.granted[sequence.sequence_id] = total
        self.tokens_left -= num_tokens
        if sequence.wants_prompt_logits:
            self.logits_left -= num_tokens
        elif total == sequence.num_uncomputed:
            self.logits_left -= 1

    def rest(self, sequence: RunningSequence) -> int:
        """Tokens that a sequence could still be granted."""
        return sequence.num_uncomputed - self.granted.get(sequence.sequence_id, 0)

    def affordable(self, sharing: list[RunningSequence]) -> list[int]:
        """How many further tokens each sequence can be granted so that all together stay within the logits.

        A prompt that is scored costs a row for every token, any other one row for its last token; without that row it
        stops one token short.
        """
        rest = [self.rest(sequence) for sequence in sharing]
        needed = [
            num_tokens if sequence.wants_prompt_logits else int(0 < num_tokens <= self.tokens_left)
            for sequence, num_tokens in zip(sharing, rest, strict=True)
        ]
        rows = water_fill(self.logits_left, needed)
        return [
            num_rows if sequence.wants_prompt_logits else num_tokens - (num_needed - num_rows)
            for sequence, num_tokens, num_needed, num_rows in zip(sharing, rest, needed, rows, strict=True)
        ]


def water_fill(amount: int, needs: Sequence[int]) -> list[int]:
    """Divide ``amount`` max-min fairly: small needs are met, the others get equal parts of what is left.

    Parts differ by at most one; the odd ones go to smaller needs first, then to earlier ones.
    """
    shares = [0] * len(needs)
    smallest_first = sorted(range(len(needs)), key=needs.__getitem__)
    for num_served, index in enumerate(smallest_first):
        equal_part = -(-amount // (len(needs) - num_served))
        shares[index] = min(needs[index], equal_part)
        amount -= shares[index]
    return shares
