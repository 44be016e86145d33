"""From decisions and page tables to the arrays of one step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layerscale_core.engine.plan import ScheduledSequence
from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.specs.executor import StepBatch
from layerscale_core.specs.kv_pool import KVPool


class StepBuilder:
    """Builds every step's batch in the same buffers; a batch is valid until the next one is built.

    Args:
        pool: gives the slots of new tokens.
        max_tokens: most tokens of a step.
        max_logits: most rows of logits.
    """

    def __init__(self, pool: KVPool, max_tokens: int, max_logits: int) -> None:
        self._pool = pool
        self._token_ids = np.zeros(max_tokens, np.int32)
        self._positions = np.zeros(max_tokens, np.int32)
        self._slot_mapping = np.zeros(max_tokens, np.int64)
        self._cu_seqlens = np.zeros(max_tokens + 1, np.int32)
        self._logits_indices = np.zeros(max_logits, np.int32)
        self._tables = np.zeros(0, np.int32)

    def build(self, scheduled: Sequence[ScheduledSequence]) -> StepBatch:
        """Give the scheduled tokens their slots in the pool, and lay out the batch."""
        num_tokens = num_logits = 0
        for index, item in enumerate(scheduled):
            sequence, start = item.sequence, num_tokens
            num_tokens += item.num_tokens
            self._cu_seqlens[index + 1] = num_tokens
            first, stop = sequence.num_computed, sequence.num_computed + item.num_tokens
            self._token_ids[start:num_tokens] = [*sequence.tokens[first:stop], *item.draft]
            self._positions[start:num_tokens] = np.arange(first, stop) + sequence.first_position
            self._slot_mapping[start:num_tokens] = self._append(sequence, item.num_tokens)
            wanted = np.arange(num_tokens - item.num_logits, num_tokens)
            self._logits_indices[num_logits : num_logits + item.num_logits] = wanted
            num_logits += item.num_logits
        page_tables, page_starts, page_stops = self._lay_out_tables(scheduled)
        return StepBatch(
            token_ids=self._token_ids[:num_tokens],
            positions=self._positions[:num_tokens],
            slot_mapping=self._slot_mapping[:num_tokens],
            cu_seqlens=self._cu_seqlens[: len(scheduled) + 1],
            page_tables=page_tables,
            page_starts=page_starts,
            page_stops=page_stops,
            logits_indices=self._logits_indices[:num_logits],
        )

    def _append(self, sequence: LiveSequence, num_tokens: int) -> list[int]:
        held = sequence.admitted
        slots = self._pool.append(held.table, num_tokens)
        held.page_arrays.update(held.table.pages)
        return slots

    def _lay_out_tables(self, scheduled: Sequence[ScheduledSequence]) -> NDArray[np.int32]:
        """[3, num_seqs, max_pages]: page ids, starts, stops; contiguous, padded with -1, 0, 0."""
        max_pages = max(item.sequence.admitted.page_arrays.num_pages for item in scheduled)
        size = 3 * len(scheduled) * max_pages
        if self._tables.size < size:
            self._tables = np.zeros(2 * size, np.int32)
        tables = self._tables[:size].reshape(3, len(scheduled), max_pages)
        tables[0] = -1
        tables[1:] = 0
        for index, item in enumerate(scheduled):
            arrays = item.sequence.admitted.page_arrays
            tables[:, index, : arrays.num_pages] = arrays.rows
        return tables
