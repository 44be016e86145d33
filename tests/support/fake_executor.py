"""A model without weights: every token follows from all tokens before it, and nothing in the KV pool goes unchecked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from layerscale_core.specs import StepBatch
from tests.support.fake_tokenizer import ByteTokenizer

PRINTABLE = tuple(range(32, 127))
"""The tokens the model says by default: ASCII, one character each, never the end of sequence."""


def next_token(context: Sequence[int], alphabet: Sequence[int] = PRINTABLE) -> int:
    """What ``FakeExecutor`` finds likeliest after ``context``: a function of every token and its place."""
    return alphabet[sum(token_id * (2 * index + 1) + 7 for index, token_id in enumerate(context)) % len(alphabet)]


def greedy_answer(prompt: Sequence[int], num_tokens: int, alphabet: Sequence[int] = PRINTABLE) -> list[int]:
    """The tokens that a greedy request for ``prompt`` must get, whatever else is going on."""
    context = list(prompt)
    for _ in range(num_tokens):
        context.append(next_token(context, alphabet))
    return context[len(prompt) :]


class FakeExecutor:
    """Implements ``specs.Executor``. Its cache holds token ids and positions instead of keys and values.

    Each step checks the batch's promises, then reads every sequence's valid slots, as attention would: they must hold
    positions 0, 1, 2 … without a gap. The next token depends on all that was read, so that a token of another sequence,
    or one in the wrong place, changes the answer away from ``greedy_answer``.

    Args:
        alphabet: the ids the model says; each next one is 0.5 less likely (in logits) than the one before, cyclically,
            starting from the likeliest. All others are at -50.

    Attributes:
        before_step: called with each batch before it is computed; may block, or raise to make the step fail.
        after_step: called with the batch and its logits, which it may change.
        batches: the numbers of new tokens per sequence, of every step that was computed.
        violations: broken promises that were found. The engine contains a step's exceptions, so tests look here.
    """

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        vocab_size: int = ByteTokenizer.vocab_size,
        alphabet: Sequence[int] = PRINTABLE,
    ) -> None:
        self.before_step: Callable[[StepBatch], None] = lambda batch: None
        self.after_step: Callable[[StepBatch, NDArray[np.float32]], None] = lambda batch, logits: None
        self.batches: list[list[int]] = []
        self.violations: list[AssertionError] = []
        self.num_closed = 0
        self._num_pages = num_pages
        self._page_size = page_size
        self._vocab_size = vocab_size
        self._alphabet = np.array(alphabet)
        self._token_ids = np.full(num_pages * page_size, -1, np.int64)
        self._positions = np.full(num_pages * page_size, -1, np.int64)

    def step(self, batch: StepBatch) -> NDArray[np.float32]:
        assert self.num_closed == 0, "used after close"
        self.before_step(batch)
        try:
            self._check_shapes(batch)
            self._token_ids[batch.slot_mapping] = batch.token_ids
            self._positions[batch.slot_mapping] = batch.positions
            likeliest = np.concatenate([self._read(batch, index) for index in range(batch.num_seqs)])
        except AssertionError as violation:
            self.violations.append(violation)
            raise
        logits = self._logits(likeliest[batch.logits_indices])
        self.after_step(batch, logits)
        self.batches.append(np.diff(batch.cu_seqlens).tolist())
        return logits

    def copy_pages(self, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        for cache in (self._token_ids, self._positions):
            pages = cache.reshape(self._num_pages, self._page_size)
            pages[target_ids] = pages[source_ids]

    def close(self) -> None:
        self.num_closed += 1

    def _check_shapes(self, batch: StepBatch) -> None:
        num_tokens, num_seqs = batch.num_tokens, batch.num_seqs
        assert num_seqs >= 1
        assert batch.token_ids.dtype == batch.positions.dtype == batch.cu_seqlens.dtype == np.int32
        assert batch.slot_mapping.dtype == np.int64
        assert batch.token_ids.shape == batch.positions.shape == batch.slot_mapping.shape == (num_tokens,)
        assert batch.token_ids.min() >= 0
        assert batch.token_ids.max() < self._vocab_size
        assert batch.cu_seqlens[0] == 0
        assert batch.cu_seqlens[-1] == num_tokens
        assert np.diff(batch.cu_seqlens).min() >= 1, "a sequence without new tokens"
        assert np.unique(batch.slot_mapping).size == num_tokens, "a slot is written twice"
        assert batch.logits_indices.dtype == np.int32
        assert np.all(np.diff(batch.logits_indices) > 0)
        assert np.all((batch.logits_indices >= 0) & (batch.logits_indices < num_tokens))
        for table in (batch.page_tables, batch.page_starts, batch.page_stops):
            assert table.dtype == np.int32
            assert table.shape == batch.page_tables.shape
            assert table.shape[0] == num_seqs
            assert table.flags.c_contiguous
        padded = batch.page_tables < 0
        assert np.all(batch.page_tables[padded] == -1)
        assert not np.any(batch.page_starts[padded])
        assert not np.any(batch.page_stops[padded])
        assert np.all(padded[:, 1:] >= padded[:, :-1]), "a page after the padding"
        owned = batch.page_tables[~padded]
        assert np.unique(owned).size == owned.size, "a page in two tables"
        assert np.all(owned < self._num_pages)

    def _read(self, batch: StepBatch, index: int) -> NDArray[np.int64]:
        """The likeliest next token after each new token of a sequence."""
        num_pages = int((batch.page_tables[index] >= 0).sum())
        page_ids = batch.page_tables[index, :num_pages, None].astype(np.int64)
        offsets = np.arange(self._page_size)
        starts, stops = batch.page_starts[index, :num_pages, None], batch.page_stops[index, :num_pages, None]
        assert np.all((starts >= 0) & (starts < stops) & (stops <= self._page_size))
        slots = (page_ids * self._page_size + offsets)[(starts <= offsets) & (offsets < stops)]
        first, stop = int(batch.cu_seqlens[index]), int(batch.cu_seqlens[index + 1])
        assert np.array_equal(slots[-(stop - first) :], batch.slot_mapping[first:stop]), "new tokens are not the last"
        assert np.array_equal(self._positions[slots], np.arange(slots.size)), "a slot holds another position"
        running_sum = np.cumsum(self._token_ids[slots] * (2 * np.arange(slots.size) + 1) + 7)
        likeliest: NDArray[np.int64] = running_sum[-(stop - first) :] % self._alphabet.size
        return likeliest

    def _logits(self, likeliest: NDArray[np.int64]) -> NDArray[np.float32]:
        logits = np.full((likeliest.size, self._vocab_size), -50, np.float32)
        rank = (np.arange(self._alphabet.size) - likeliest[:, None]) % self._alphabet.size
        logits[:, self._alphabet] = -0.5 * rank
        return logits
