"""From decisions and page tables to the arrays of one step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layerscale_core.engine.plan import ScheduledSequence
from layerscale_core.specs.executor import StepBatch
from layerscale_core.specs.kv_pool import KVPool


class StepBuilder:
    """Builds every step's batch in the same buffers; a batch is valid until the next one is built.

    A step of answers that grow is laid out by single numbers, and like the one before it: then nothing is allocated.

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
        # The same memory, faster for single numbers.
        self._token_id_at = self._token_ids.data
        self._position_at = self._positions.data
        self._slot_at = self._slot_mapping.data
        self._cu_seqlen_at = self._cu_seqlens.data
        self._logits_index_at = self._logits_indices.data
        self._shape = (0, 0, 0, 0)
        self._batch: StepBatch | None = None

    def build(self, scheduled: Sequence[ScheduledSequence]) -> StepBatch:
        """Give the scheduled tokens their slots in the pool, and lay out the batch."""
        num_tokens = num_logits = max_pages = 0
        for index, item in enumerate(scheduled):
            held = item.sequence.admitted
            slots = self._pool.append(held.table, item.num_tokens)
            held.page_arrays.update(held.table.pages)
            if item.num_tokens == 1:
                self._place_one(item, num_tokens, slots[0])
            else:
                self._place_many(item, num_tokens, slots)
            num_tokens += item.num_tokens
            self._cu_seqlen_at[index + 1] = num_tokens
            for token in range(num_tokens - item.num_logits, num_tokens):
                self._logits_index_at[num_logits] = token
                num_logits += 1
            max_pages = max(max_pages, held.page_arrays.num_pages)
        return self._lay_out(scheduled, (num_tokens, len(scheduled), num_logits, max_pages))

    def _place_one(self, item: ScheduledSequence, start: int, slot: int) -> None:
        sequence = item.sequence
        self._token_id_at[start] = sequence.tokens[sequence.num_computed]  # a draft comes behind a known token
        self._position_at[start] = sequence.first_position + sequence.num_computed
        self._slot_at[start] = slot

    def _place_many(self, item: ScheduledSequence, start: int, slots: list[int]) -> None:
        sequence, stop = item.sequence, start + item.num_tokens
        first, last = sequence.num_computed, sequence.num_computed + item.num_tokens
        self._token_ids[start:stop] = [*sequence.tokens[first:last], *item.draft]
        self._positions[start:stop] = np.arange(first, last) + sequence.first_position
        self._slot_mapping[start:stop] = slots

    def _lay_out(self, scheduled: Sequence[ScheduledSequence], shape: tuple[int, int, int, int]) -> StepBatch:
        """The batch of what was placed; the last one again if it has the same shape: its arrays are these buffers."""
        num_tokens, num_seqs, num_logits, max_pages = shape
        tables = self._lay_out_tables(scheduled, max_pages)
        if self._batch is None or shape != self._shape:
            self._shape = shape
            self._batch = StepBatch(
                token_ids=self._token_ids[:num_tokens],
                positions=self._positions[:num_tokens],
                slot_mapping=self._slot_mapping[:num_tokens],
                cu_seqlens=self._cu_seqlens[: num_seqs + 1],
                page_tables=tables[0],
                page_starts=tables[1],
                page_stops=tables[2],
                logits_indices=self._logits_indices[:num_logits],
            )
        return self._batch

    def _lay_out_tables(self, scheduled: Sequence[ScheduledSequence], max_pages: int) -> NDArray[np.int32]:
        """[3, num_seqs, max_pages]: page ids, starts, stops; contiguous, padded with -1, 0, 0."""
        size = 3 * len(scheduled) * max_pages
        if self._tables.size < size:
            self._tables = np.zeros(2 * size, np.int32)
            self._batch = None  # it shows the old ones
        tables = self._tables[:size].reshape(3, len(scheduled), max_pages)
        for index, item in enumerate(scheduled):
            arrays = item.sequence.admitted.page_arrays
            tables[:, index, : arrays.num_pages] = arrays.rows
            if arrays.num_pages < max_pages:
                tables[0, index, arrays.num_pages :] = -1
                tables[1:, index, arrays.num_pages :] = 0
        return tables
