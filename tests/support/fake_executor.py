"""A model without weights: every token follows from all tokens before it, and nothing in the KV pool goes unchecked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

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
        max_gaps: how many gaps between positions a sequence may have: one where a session's window has slid.
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
        max_gaps: int = 0,
    ) -> None:
        self.before_step: Callable[[StepBatch], None] = lambda batch: None
        self.after_step: Callable[[StepBatch, NDArray[np.float32]], None] = lambda batch, logits: None
        self.batches: list[list[int]] = []
        self.violations: list[AssertionError] = []
        self.num_closed = 0
        self._num_pages = num_pages
        self._page_size = page_size
        self._max_gaps = max_gaps
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
            likeliest = self._attend(batch)
        except AssertionError as violation:
            self.violations.append(violation)
            raise
        logits = self._logits(likeliest[batch.logits_indices])
        self.after_step(batch, logits)
        self.batches.append(np.diff(batch.cu_seqlens).tolist())
        return logits

    def copy_pages(self, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        for pages in self._pages():
            pages[target_ids] = pages[source_ids]

    def shift_positions(self, page_ids: NDArray[np.int32], delta: int) -> None:
        _, positions = self._pages()
        positions[page_ids] += delta

    @property
    def kv_fingerprint(self) -> str:
        return f"fake 1, pages of {self._page_size} tokens"

    def read_pages(self, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        content = np.concatenate([pages[page_ids] for pages in self._pages()], axis=1)
        return np.ascontiguousarray(content).view(np.uint8)

    def write_pages(self, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        if data.shape != (len(page_ids), 16 * self._page_size):
            raise ValueError(f"{data.shape} bytes are not the content of {len(page_ids)} pages")
        content = np.ascontiguousarray(data).view(np.int64)
        for pages, part in zip(self._pages(), np.hsplit(content, 2), strict=True):
            pages[page_ids] = part

    def _pages(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids and positions, [num_pages, page_size] views of the cache."""
        shape = (self._num_pages, self._page_size)
        return self._token_ids.reshape(shape), self._positions.reshape(shape)

    def close(self) -> None:
        self.num_closed += 1

    def _check_shapes(self, batch: StepBatch) -> None:
        tables = (batch.page_tables, batch.page_starts, batch.page_stops)
        int32s = (batch.token_ids, batch.positions, batch.cu_seqlens, batch.logits_indices, *tables)
        assert {array.dtype for array in int32s} == {np.dtype(np.int32)}
        assert batch.slot_mapping.dtype == np.int64
        assert batch.token_ids.shape == batch.positions.shape == batch.slot_mapping.shape == (batch.num_tokens,)
        assert {table.shape for table in tables} == {(batch.num_seqs, batch.page_tables.shape[1])}
        assert all(table.flags.c_contiguous for table in tables)

        assert all(0 <= token_id < self._vocab_size for token_id in batch.token_ids.tolist())
        assert len(set(batch.slot_mapping.tolist())) == batch.num_tokens, "a slot is written twice"
        _check_ascending(batch.logits_indices.tolist())
        assert all(0 <= index < batch.num_tokens for index in batch.logits_indices.tolist())
        cu_seqlens = batch.cu_seqlens.tolist()
        assert (cu_seqlens[0], cu_seqlens[-1]) == (0, batch.num_tokens)
        _check_ascending(cu_seqlens)

        is_page = batch.page_tables >= 0
        pages = batch.page_tables[is_page]
        assert bool((pages < self._num_pages).all())
        num_tables = np.bincount(pages, minlength=self._num_pages)
        assert bool((num_tables[batch.slot_mapping // self._page_size] == 1).all()), "writes into a shared page"
        assert bool((batch.page_tables[~is_page] == -1).all())
        assert bool(((batch.page_starts < batch.page_stops) == is_page).all()), "an empty page, or a range without one"
        assert bool((is_page[:, 1:] <= is_page[:, :-1]).all()), "a page after the padding"

    def _attend(self, batch: StepBatch) -> NDArray[np.int64]:
        """The likeliest next token after each new token, as an index into the alphabet."""
        offsets = np.arange(self._page_size)
        valid = (batch.page_starts[:, :, None] <= offsets) & (offsets < batch.page_stops[:, :, None])
        slots = (batch.page_tables[:, :, None].astype(np.int64) * self._page_size + offsets)[valid]
        context_lens = valid.sum(axis=(1, 2))
        context_starts = np.cumsum(context_lens) - context_lens
        places = np.arange(slots.size) - np.repeat(context_starts, context_lens)
        for start, length in zip(context_starts.tolist(), context_lens.tolist(), strict=True):
            self._check_positions(self._positions[slots[start : start + length]])

        num_new = np.diff(batch.cu_seqlens)
        new = np.arange(batch.num_tokens) + np.repeat(context_starts + context_lens - batch.cu_seqlens[1:], num_new)
        assert np.array_equal(slots[new], batch.slot_mapping), "new tokens are not the last of their sequence"
        terms = self._token_ids[slots] * (2 * places + 1) + 7
        running_sum = np.cumsum(terms)
        before = (running_sum - terms)[context_starts]
        likeliest: NDArray[np.int64] = (running_sum[new] - np.repeat(before, num_new)) % self._alphabet.size
        return likeliest

    def _check_positions(self, positions: NDArray[np.int64]) -> None:
        steps = np.diff(positions)
        assert positions[0] == 0 or self._max_gaps, "a slot holds another position"
        assert bool((steps > 0).all()), "a slot holds another position"
        assert np.count_nonzero(steps > 1) <= self._max_gaps, "a slot holds another position"

    def _logits(self, likeliest: NDArray[np.int64]) -> NDArray[np.float32]:
        logits = np.full((likeliest.size, self._vocab_size), -50, np.float32)
        rank = (np.arange(self._alphabet.size) - likeliest[:, None]) % self._alphabet.size
        logits[:, self._alphabet] = -0.5 * rank
        return logits


def _check_ascending(numbers: list[int]) -> None:
    assert all(first < second for first, second in pairwise(numbers))
