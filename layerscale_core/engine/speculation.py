"""Speculation: what a step has room for beside known tokens goes to drafts, as long as that makes answers faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile

from layerscale_core.engine.drafter import Drafter
from layerscale_core.engine.plan import ScheduledSequence
from layerscale_core.engine.prompt_lookup import PromptLookup
from layerscale_core.engine.step_costs import StepCosts
from layerscale_core.specs.kv_pool import KVPool
from layerscale_core.specs.scheduler import TokenBudget

_MAX_SEQS = 8
"""With more of them a step is busy enough that further tokens are not nearly free anywhere."""


class Speculation:
    """Drafts of decoding sequences, verified by the step that computes them (arXiv:2211.17192).

    Every row of logits is sampled from as if its token had come in a step of its own, and the first that differs from
    the draft ends it: answers are the same with drafts and without, sampled ones too. A step with prompts in it has no
    drafts: it is busy already.

    Thread: engine.

    Args:
        is_on: without it there are no drafts.

    Attributes:
        num_drafted, num_accepted: tokens of drafts so far, and those that came true.
    """

    def __init__(self, pool: KVPool, budget: TokenBudget, *, is_on: bool) -> None:
        self.num_drafted = self.num_accepted = 0
        self._pool = pool
        self._budget = budget
        self._is_on = is_on
        self._costs = StepCosts()
        self._num_seqs = 0  # in the step that is being settled

    def add_drafts(self, scheduled: list[ScheduledSequence]) -> list[ScheduledSequence]:
        """The same step, with drafts in what is left of the budget."""
        num_seqs = len(scheduled)
        if not (self._is_decode_of_few(scheduled) and self._costs.knows(num_seqs)):
            return scheduled
        tokens_left = self._budget.max_tokens - sum(item.num_tokens for item in scheduled)
        logits_left = self._budget.max_logits - sum(item.num_logits for item in scheduled)
        share = min(tokens_left, logits_left) // num_seqs
        return [self._with_draft(item, share) for item in scheduled]

    def step_took(self, scheduled: Sequence[ScheduledSequence], seconds: float) -> None:
        """Learn what a step cost, before it is settled."""
        self._num_seqs = len(scheduled)
        if not self._is_decode_of_few(scheduled):
            return
        draft_lens = [len(item.draft) for item in scheduled]
        num_tokens = sum(item.num_tokens for item in scheduled)
        if num_tokens == len(scheduled) + sum(draft_lens):
            self._costs.learn(len(scheduled), max(draft_lens), sum(draft_lens), seconds)

    def settle(self, item: ScheduledSequence, num_kept: int) -> None:
        """Take the tokens of a draft that did not come true out of the KV pool again.

        Args:
            num_kept: of the tokens that the step computed, those that count as computed.
        """
        if not item.draft:
            return
        sequence, num_drafted, num_rejected = item.sequence, len(item.draft), item.num_tokens - num_kept
        if num_rejected:
            held = sequence.admitted
            self._pool.truncate(held.table, held.table.num_tokens - num_rejected)
            held.page_arrays.cut(len(held.table.pages))
        self.num_drafted += num_drafted
        self.num_accepted += num_drafted - num_rejected
        assert sequence.drafter is not None
        price = partial(self._costs.price, self._num_seqs)
        sequence.drafter.learn(num_drafted, num_drafted - num_rejected, price)

    def _is_decode_of_few(self, scheduled: Sequence[ScheduledSequence]) -> bool:
        return self._is_on and len(scheduled) <= _MAX_SEQS and all(item.is_decoding for item in scheduled)

    def _with_draft(self, item: ScheduledSequence, share: int) -> ScheduledSequence:
        sequence = item.sequence
        room = min(share, sequence.max_computed - len(sequence.tokens))
        if room < 1 or not item.num_logits:
            return item
        if sequence.drafter is None:
            most_tokens = len(sequence.history) + sequence.max_computed
            sequence.drafter = Drafter(PromptLookup(sequence.history, most_tokens))
        proposed = sequence.drafter.propose(sequence.tokens, room)
        draft = tuple(takewhile(lambda token_id: token_id not in sequence.answer.stop_ids, proposed))
        if not draft:
            return item
        num_tokens, num_logits = item.num_tokens + len(draft), item.num_logits + len(draft)
        return replace(item, num_tokens=num_tokens, num_logits=num_logits, draft=draft)
