"""What is kept of a session: plain data, from which it goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerscale_core.errors import SavedStateError
from layerscale_core.sessions.flash import MAX_ANSWER_TOKENS, MAX_QUERIES, FlashQuery
from layerscale_core.sessions.stream import StreamCounts
from layerscale_core.sessions.window import Run
from layerscale_core.specs.kv_pool import num_pages_for

_LAST_TIME = 253_402_300_799
"""The end of the year 9999, in Unix seconds: file systems take no time that is much later."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What saved bytes mean: they are of use only where all of it is equal.

    Attributes:
        model: identifies the weights (``ModelFile.fingerprint``).
        tokenizer: identifies what each token id stands for.
        kv: the layout of pages (``Executor.kv_fingerprint``). Where it alone differs, the tokens are computed again.
    """

    model: str
    tokenizer: str
    kv: str


@dataclass(frozen=True, slots=True)
class SavedContext:
    """A ``SessionContext`` without its pages. The fields are its own, and two that describe its page table.

    Attributes:
        num_computed: leading tokens whose keys and values are in the pages.
        data_offset: where in its page the first token of data lies; None if no data has begun a page of its own.
    """

    context_len: int
    tokens: tuple[int, ...]
    prefix_end: int
    data_start: int | None
    durable_end: int
    gap: int
    window: tuple[Run, ...]
    num_computed: int
    data_offset: int | None

    def num_pages(self, page_size: int) -> int:
        """Pages that hold what is computed."""
        if self.data_start is None or self.data_offset is None:
            return num_pages_for(self.num_computed, page_size)
        num_data_slots = self.data_offset + self.num_computed - self.data_start
        return num_pages_for(self.data_start, page_size) + num_pages_for(num_data_slots, page_size)


@dataclass(frozen=True, slots=True)
class SavedSession:
    """A session.

    Attributes:
        entries: of the window, oldest first.
        waiting: entries that were acknowledged and are not in the context, oldest first.
        last_flash_id: the id given last to a flash query; ids are not reused.
        num_evaluations: flash answers so far.
    """

    session_id: str
    label: str
    type: str
    window_size: int
    created_at: int
    last_used_at: int
    data_version: int
    revision: int
    context: SavedContext
    entries: tuple[Mapping[str, Any], ...]
    waiting: tuple[Mapping[str, Any], ...]
    counts: StreamCounts
    flash: tuple[FlashQuery, ...]
    last_flash_id: int
    num_evaluations: int


def check_saved(saved: SavedSession, *, vocab_size: int) -> None:
    """Prove that a session could be in this state; what the entries say is for their stream type to check.

    Raises:
        SavedStateError: it could not.
    """
    _check_context(saved.context, vocab_size)
    num_entries = sum(run.is_entry for run in saved.context.window)
    _require(len(saved.entries) == num_entries, "the window holds other entries than its tokens do")
    _require(saved.window_size >= 1, "the window has no size")
    _require(min(saved.created_at, saved.last_used_at, saved.num_evaluations) >= 0, "a time or count is negative")
    _require(max(saved.created_at, saved.last_used_at) <= _LAST_TIME, "a time is beyond the calendar")
    _require(0 <= saved.data_version <= saved.revision, "the versions are out of order")
    _check_counts(saved.counts, len(saved.waiting))
    _check_flash(saved, vocab_size)


def _check_context(context: SavedContext, vocab_size: int) -> None:
    num_tokens, data_start = len(context.tokens), context.data_start
    _require(_are_tokens(context.tokens, vocab_size), "a token is not in the vocabulary")
    _require(0 <= context.prefix_end <= context.durable_end <= num_tokens, "the regions are out of order")
    _require(0 <= context.num_computed <= num_tokens, "more is computed than there is")
    _require(context.gap >= 0 and num_tokens + context.gap <= context.context_len, "positions lie outside the context")
    _require(all(run.num_tokens >= 1 for run in context.window), "an entry without tokens")
    num_data_tokens = sum(run.num_tokens for run in context.window)
    if data_start is None:
        _require(context.gap == num_data_tokens == 0 and context.data_offset is None, "data without a region")
        return
    _require(context.prefix_end <= data_start <= context.durable_end, "the regions are out of order")
    _require(context.durable_end - data_start == num_data_tokens, "the window is not what the data region holds")
    if context.data_offset is None:
        _require(not context.window or context.num_computed <= data_start, "data without a page")
    else:
        _require(context.data_offset >= 0 and context.num_computed > data_start, "a page of data without data")


def _check_counts(counts: StreamCounts, num_waiting: int) -> None:
    totals = (counts.total_dropped, counts.batches_processed, counts.items_processed, counts.process_time_us)
    _require(min(totals) >= 0, "a count is negative")
    _require(counts.num_in_flight == 0 and counts.queue_size == num_waiting, "other entries wait than are counted")
    _require(counts.total_enqueued == num_waiting + counts.items_processed, "entries are miscounted")


def _check_flash(saved: SavedSession, vocab_size: int) -> None:
    ids = [query.id for query in saved.flash]
    _require(len(ids) <= MAX_QUERIES and len({query.query for query in saved.flash}) == len(ids), "too many queries")
    _require(ids == sorted(set(ids)) and all(1 <= id_ <= saved.last_flash_id for id_ in ids), "ids of queries are wild")
    for query in saved.flash:
        _require(1 <= query.max_tokens <= MAX_ANSWER_TOKENS, "an answer's length is out of range")
        _require(_are_tokens(query.token_ids, vocab_size), "a question's token is not in the vocabulary")
        answer = query.answer
        if answer is not None:
            _require(min(answer.num_tokens, answer.evaluated_at, answer.data_version) >= 0, "an answer's count is wild")
            _require(answer.data_version <= saved.data_version, "an answer comes from the future")
            _require(0 <= answer.revision <= saved.revision, "an answer comes from the future")


def _are_tokens(token_ids: Sequence[int], vocab_size: int) -> bool:
    return all(0 <= token_id < vocab_size for token_id in token_ids)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SavedStateError(otherwise)
