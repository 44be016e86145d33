"""How the loop uses the prefix cache: who begins with what, who waits for whom, and what is kept afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.specs.kv_pool import KVPool, MissReason, PrefixMiss

logger = logging.getLogger(__name__)


class PrefixSharing:
    """Sequences reuse each other's computed tokens, those of ended ones and those of running ones.

    What a sequence computed is published when its prompt is done, and again when it ends. By then its logits were
    finite, and as they depend on every key and value before them, so are those: a prompt that breaks the numbers is
    never shared. A sequence whose prompt begins like one that is being computed waits for it, if that one has at most
    twice as much left as is saved: fifty equal requests at once compute their prompt once. Who is waited for is as
    urgent as who waits: a prompt that is warmed up in the background is hurried along when it is asked.

    Thread: engine.

    Args:
        is_on: without it every sequence begins at once, with nothing.

    Attributes:
        num_cached_tokens: prompt tokens found so far.
    """

    def __init__(self, pool: KVPool, *, is_on: bool) -> None:
        self.num_cached_tokens = 0
        self._pool = pool
        self._is_on = is_on
        self._awaited: dict[LiveSequence, LiveSequence] = {}

    def begin_ready(self, running: Mapping[int, LiveSequence]) -> dict[int, LiveSequence]:
        """Begin the sequences that need not wait; returns all that may compute.

        The one that was admitted first never waits, and each waits for earlier ones only, so nobody waits for ever.
        """
        self._awaited = {
            waiting: awaited
            for waiting, awaited in self._awaited.items()
            if waiting.admitted.sequence_id in running
            and awaited.admitted.sequence_id in running
            and not awaited.is_decoding
        }
        ready: dict[int, LiveSequence] = {}
        for sequence_id, sequence in running.items():
            if not sequence.has_begun and not self._must_wait(sequence, ready.values()):
                self._begin(sequence)
            if sequence.has_begun:
                ready[sequence_id] = sequence
        return ready

    def publish(self, sequence: LiveSequence) -> None:
        """Share what a sequence computed, if its prompt is done."""
        if self._is_on and sequence.is_decoding and sequence.shares_prefix:
            request, computed = sequence.request, sequence.tokens[: sequence.num_computed]
            self._pool.publish(sequence.admitted.table, computed, request.cache_key)

    def withdraw(self, sequence: LiveSequence) -> None:
        """Share nothing of a sequence that failed."""
        if sequence.shares_prefix:
            self._pool.withdraw(sequence.admitted.table)

    def _must_wait(self, sequence: LiveSequence, ready: Iterable[LiveSequence]) -> bool:
        if sequence in self._awaited:
            return True
        if sequence.scores_whole_prompt or not self._is_on:
            return False
        for other in ready:
            if other.shares_prefix and not other.is_decoding and self._is_worth_waiting(sequence, other):
                self._awaited[sequence] = other
                other.priority = min(other.priority, sequence.priority)
                return True
        return False

    def _is_worth_waiting(self, sequence: LiveSequence, other: LiveSequence) -> bool:
        if sequence.request.cache_key != other.request.cache_key:
            return False
        num_saved = self._num_shared(sequence, other) - (other.num_cached or 0)
        return num_saved > 0 and 2 * num_saved >= other.num_uncomputed

    def _num_shared(self, sequence: LiveSequence, other: LiveSequence) -> int:
        """Leading tokens that one prompt can take over from another, in whole pages."""
        size, num_shared = self._pool.page_size, 0
        most = min(sequence.prompt_len - 1, other.prompt_len)
        while (stop := num_shared + size) <= most and (
            sequence.tokens[num_shared:stop] == other.tokens[num_shared:stop]
        ):
            num_shared = stop
        return num_shared

    def _begin(self, sequence: LiveSequence) -> None:
        table, request = sequence.admitted.table, sequence.request
        miss: PrefixMiss | None = None
        if self._is_on and sequence.scores_whole_prompt:
            miss = PrefixMiss(0, MissReason.BYPASSED)
        elif self._is_on:
            miss = self._pool.reuse_prefix(table, request.prompt_ids, request.cache_key)
        sequence.begin(table.num_tokens, miss)
        self.num_cached_tokens += table.num_tokens
        if miss is not None:
            logger.debug(
                "request %s: %d of %d prompt tokens cached, the prefix ends at token %d: %s",
                request.request_id,
                table.num_tokens,
                sequence.prompt_len,
                miss.token_index,
                miss.reason.value,
            )
