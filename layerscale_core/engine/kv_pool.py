"""The default KV pool: pages with reference counts, promised at admission and taken when needed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from layerscale_core.specs.kv_pool import PageRange, PageTable, PoolStats


@dataclass(eq=False, slots=True)
class PagedTable:
    """One sequence's pages.

    Attributes:
        num_promised: pages this table may still take.
    """

    num_promised: int
    pages: list[PageRange] = field(default_factory=list)
    num_tokens: int = 0


class PagedKVPool:
    """Pages of one size (PagedAttention, arXiv:2309.06180); implements ``specs.KVPool``. Thread: engine.

    A sequence is promised its worst case when it is admitted and takes pages as it grows, so an admitted sequence never
    finds the pool empty. ``free pages >= promised pages`` holds throughout.

    Freed pages are not cleared, and yet carry nothing over: a page joins a table with an empty valid range, the range
    grows only over slots that the same step writes, and executors read valid slots alone.

    Args:
        num_session_pages: pages that no stateless request is promised.
    """

    def __init__(self, num_pages: int, page_size: int, num_session_pages: int = 0) -> None:
        assert 0 <= num_session_pages <= num_pages
        assert page_size >= 1
        self._page_size = page_size
        self._num_pages = num_pages
        self._num_session_pages = num_session_pages
        self._references = np.zeros(num_pages, np.int32)
        # A stack whose top is at index _num_free: the page freed last is taken next, while the caches still know it.
        self._free = np.arange(num_pages, dtype=np.int32)[::-1].copy()
        self._num_free = num_pages
        self._num_promised = 0
        self._tables: set[PagedTable] = set()

    @property
    def page_size(self) -> int:
        """Tokens per page."""
        return self._page_size

    def can_admit(self, max_tokens: int) -> bool:
        """Whether a sequence that may grow to ``max_tokens`` can be promised its pages now."""
        return self._pages_for(max_tokens) <= self._num_free - self._num_promised - self._num_session_pages

    def fits_ever(self, max_tokens: int) -> bool:
        """Whether such a sequence could be admitted to an empty pool. Any thread."""
        return self._pages_for(max_tokens) <= self._num_pages - self._num_session_pages

    def admit(self, max_tokens: int) -> PagedTable:
        """Promise a sequence its pages up to ``max_tokens``; returns its empty table."""
        assert self.can_admit(max_tokens), "admitted without asking"
        table = PagedTable(num_promised=self._pages_for(max_tokens))
        self._num_promised += table.num_promised
        self._tables.add(table)
        return table

    def append(self, table: PageTable, num_tokens: int) -> list[int]:
        """Extend a sequence by new tokens; returns their slots in order. Takes free pages from the promise."""
        table = self._own(table)
        slots: list[int] = []
        while len(slots) < num_tokens:
            if not table.pages or table.pages[-1].stop == self._page_size:
                table.pages.append(PageRange(self._take_page(table), 0, 0))
            page = table.pages[-1]
            count = min(self._page_size - page.stop, num_tokens - len(slots))
            first_slot = page.page_id * self._page_size + page.stop
            slots.extend(range(first_slot, first_slot + count))
            page.stop += count
        table.num_tokens += num_tokens
        return slots

    def release(self, table: PageTable) -> None:
        """Give back a sequence's pages and the rest of its promise. Called exactly once per admit."""
        table = self._own(table)
        self._tables.remove(table)
        self._num_promised -= table.num_promised
        for page in table.pages:
            self._drop_page(page.page_id)

    def stats(self) -> PoolStats:
        """The counts now."""
        return PoolStats(self._num_pages, self._num_free, self._num_promised)

    def check_integrity(self) -> None:
        """Prove that free + referenced = total, each owner counted, and that promises are covered."""
        free = self._free[: self._num_free]
        owned = [page.page_id for table in self._tables for page in table.pages]
        references = np.bincount(np.array(owned, np.int64), minlength=self._num_pages)
        assert np.array_equal(references, self._references), "a reference is not counted, or its owner is gone"
        assert np.all(np.bincount(free, minlength=self._num_pages) == (references == 0)), "free and referenced overlap"
        promised = sum(table.num_promised for table in self._tables)
        assert 0 <= promised == self._num_promised <= self._num_free, "promises are not covered by free pages"
        for table in self._tables:
            self._check_ranges(table)

    def _check_ranges(self, table: PagedTable) -> None:
        assert all(0 <= page.start < page.stop <= self._page_size for page in table.pages), "an empty or wild range"
        assert all(page.stop == self._page_size for page in table.pages[:-1]), "a gap before the last page"
        assert sum(page.stop - page.start for page in table.pages) == table.num_tokens, "tokens are miscounted"

    def _pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self._page_size)

    def _own(self, table: PageTable) -> PagedTable:
        assert isinstance(table, PagedTable)
        assert table in self._tables, "released before, or made by another pool"
        return table

    def _take_page(self, table: PagedTable) -> int:
        assert table.num_promised > 0, "grew beyond its promise"
        table.num_promised -= 1
        self._num_promised -= 1
        self._num_free -= 1
        page_id = int(self._free[self._num_free])
        self._references[page_id] = 1
        return page_id

    def _drop_page(self, page_id: int) -> None:
        assert self._references[page_id] > 0, "freed twice"
        self._references[page_id] -= 1
        if self._references[page_id] == 0:
            self._free[self._num_free] = page_id
            self._num_free += 1
