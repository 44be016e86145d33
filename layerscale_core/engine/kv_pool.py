"""The default KV pool: pages with reference counts, promised at admission and taken when needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layerscale_core.engine.page_table import PagedTable
from layerscale_core.engine.pages import Pages
from layerscale_core.engine.reservations import PageReservation, Reservations
from layerscale_core.specs.kv_pool import (
    PageCopy,
    PageRange,
    PageTable,
    PoolStats,
    PrefixMiss,
    Reservation,
    num_pages_for,
)


class PagedKVPool:
    """Pages of one size (PagedAttention, arXiv:2309.06180); implements ``specs.KVPool``. Thread: engine.

    A page is free, referenced by tables, or cached: referenced by none and kept for its prefix. A sequence is promised
    its worst case when it is admitted and takes pages as it grows, so an admitted sequence never finds the pool empty:
    ``free + cached >= promised + sessions' pages`` holds throughout. Reusing a prefix keeps it, as every page found is
    one promised less.

    A page that is not full can be shared by forks alone, and is the last page of each. Whoever writes first takes a
    copy, the last one keeps it: with ``n`` owners, ``n - 1`` copies are promised along with the tables' own pages.

    Sessions have reservations, together at most their share of the pages. A reserved table is promised nothing of its
    own and takes what its reservation has left; its forks are promised their growth and one copy each.

    Freed pages are not cleared, and yet carry nothing over: a page joins a table with an empty valid range, the range
    grows only over slots that the same step writes, and executors read valid slots alone.

    Args:
        num_session_pages: pages that no stateless request is promised.
    """

    def __init__(self, num_pages: int, page_size: int, num_session_pages: int = 0) -> None:
        assert 0 <= num_session_pages <= num_pages
        assert page_size >= 1
        self._page_size = page_size
        self._pages = Pages(num_pages, page_size)
        self._sessions = Reservations(num_session_pages)
        self._num_promised = 0
        self._tables: set[PagedTable] = set()

    @property
    def page_size(self) -> int:
        """Tokens per page."""
        return self._page_size

    def can_admit(self, max_tokens: int) -> bool:
        """Whether a sequence that may grow to ``max_tokens`` can be promised its pages now."""
        return self._pages_for(max_tokens) <= self._num_unpromised

    def fits_ever(self, max_tokens: int) -> bool:
        """Whether such a sequence could be admitted to an empty pool. Any thread."""
        return self._pages_for(max_tokens) <= self._pages.num_pages - self._sessions.num_pages

    def admit(self, max_tokens: int) -> PagedTable:
        """Promise a sequence its pages up to ``max_tokens``; returns its empty table."""
        assert self.can_admit(max_tokens), "admitted without asking"
        table = PagedTable(self._page_size, self._pages_for(max_tokens))
        self._num_promised += table.num_promised
        return self._add(table)

    def can_reserve(self, num_pages: int) -> bool:
        """Whether as many of the sessions' pages are not yet reserved."""
        return self._sessions.can_add(num_pages)

    def reserve(self, num_pages: int) -> PageReservation:
        """Set sessions' pages aside."""
        return self._sessions.add(num_pages)

    def release_reservation(self, reservation: Reservation) -> None:
        """Give a reservation back. Every table in it was released before."""
        self._sessions.remove(self._sessions.own(reservation))

    def admit_reserved(self, reservation: Reservation) -> PagedTable:
        """An empty table that takes its pages from a reservation, as long as some are left there."""
        own = self._sessions.own(reservation)
        return self._add(PagedTable(self._page_size, 0, reservation=own, is_promised=False))

    def can_fork(self, table: PageTable, max_tokens: int) -> bool:
        """Whether a fork that may grow to ``max_tokens`` can be promised what it does not share."""
        table = self._own(table)
        num_available = self._num_unpromised if table.reservation is None else table.reservation.num_left
        return table.num_pages_to_grow(max_tokens) + table.has_open_page <= num_available

    def fork(self, table: PageTable, max_tokens: int, *, num_tokens: int | None = None) -> PagedTable:
        """Make a sequence that begins as a copy of another; shares its pages, copies none."""
        table = self._own(table)
        fork = table.copy()
        if num_tokens is not None:
            assert table.reservation is not None
            fork.cut(num_tokens)
        num_open = int(fork.has_open_page)
        fork.num_promised = fork.num_pages_to_grow(max_tokens)
        if table.reservation is not None:
            fork.num_promised += num_open
            table.reservation.num_promised += fork.num_promised
            assert table.reservation.num_left >= 0, "forked without asking"
        else:
            assert self.can_fork(table, max_tokens), "forked without asking"
            fork.num_inherited = len(fork.pages) - num_open
            self._num_promised += fork.num_promised + num_open
        self._pages.share(page.page_id for page in fork.pages)
        return self._add(fork)

    def reuse_prefix(self, table: PageTable, token_ids: Sequence[int], namespace: str) -> PrefixMiss | None:
        """Begin an empty table with the longest cached prefix of ``token_ids``, in whole pages."""
        table = self._own(table)
        assert not table.pages, "a prefix comes first"
        page_ids, miss = self._pages.share_prefix(token_ids, namespace)
        self._settle(table, len(page_ids))
        table.pages += [PageRange(page_id, 0, self._page_size) for page_id in page_ids]
        table.num_inherited = len(page_ids)
        table.num_tokens = len(page_ids) * self._page_size
        return miss

    def publish(self, table: PageTable, token_ids: Sequence[int], namespace: str) -> None:
        """Let later sequences reuse a table's full pages, also after its release, until memory is needed."""
        table = self._own(table)
        if table.is_whole:
            num_full = min(table.num_tokens, len(token_ids)) // self._page_size
            self._pages.publish(token_ids, namespace, [page.page_id for page in table.pages[:num_full]])

    def withdraw(self, table: PageTable) -> None:
        """Take back what was published of the pages that this sequence computed: they may be bad."""
        table = self._own(table)
        for page in table.pages[table.num_inherited :]:
            self._pages.withdraw(page.page_id)

    def make_writable(self, table: PageTable) -> PageCopy | None:
        """Give a sequence its own last page if the next token goes into one that is shared."""
        table = self._own(table)
        if not self._shares_open_page(table):
            return None
        shared = table.pages[-1]
        if table.reservation is None:
            self._num_promised -= 1
        own = replace(shared, page_id=self._take_page(table))
        self._pages.release(shared.page_id)
        table.pages[-1] = own
        return PageCopy(shared.page_id, own.page_id)

    def append(self, table: PageTable, num_tokens: int) -> list[int]:
        """Extend a sequence by new tokens; returns their slots in order. Takes pages from the promise."""
        table = self._own(table)
        slots: list[int] = []
        while len(slots) < num_tokens:
            if not table.has_open_page:
                if table.reservation is None:
                    self._settle(table, 1)
                table.pages.append(PageRange(self._take_page(table), 0, 0))
            assert self._pages.num_owners(table.pages[-1].page_id) == 1, "writes into a shared page"
            slots.extend(table.fill(num_tokens - len(slots)))
        return slots

    def drop_front(self, table: PageTable, num_tokens: int) -> None:
        """Make a sequence's oldest tokens invalid; of one that is not reserved at least one stays."""
        table = self._own(table)
        num_kept = 1 if table.reservation is None else table.num_sealed_tokens
        assert 0 <= num_tokens <= table.num_tokens - num_kept, "drops more than may go"
        self._release_pages(table, table.drop_front(num_tokens))

    def begin_page(self, table: PageTable) -> None:
        """Have a reserved table's next token begin a page of its own, which sets what is held so far apart for good."""
        table = self._own(table)
        assert table.reservation is not None
        table.num_sealed = len(table.pages)

    def truncate(self, table: PageTable, num_tokens: int) -> None:
        """Keep the first ``num_tokens`` tokens of a table, whose promise or reservation gets the other pages back."""
        table = self._own(table)
        assert 0 <= num_tokens <= table.num_tokens, "keeps more than there is"
        dropped = table.cut(num_tokens)
        if table.is_promised:
            self._promise_again(table, dropped)
        self._release_pages(table, dropped)

    def release(self, table: PageTable) -> None:
        """Give back a sequence's pages and the rest of its promise. Called exactly once per admit or fork."""
        table = self._own(table)
        if table.reservation is not None:
            table.reservation.num_promised -= table.num_promised
        else:
            self._num_promised -= table.num_promised + self._shares_open_page(table)
        self._tables.remove(table)
        self._release_pages(table, table.pages)

    def stats(self) -> PoolStats:
        """The counts now."""
        return PoolStats(self._pages.num_pages, self._pages.num_free, self._num_promised, self._pages.num_cached)

    def check_integrity(self) -> None:
        """Prove that free + cached + referenced = total, each owner counted, and that promises are covered."""
        self._pages.check(page.page_id for table in self._tables for page in table.pages)
        for table in self._tables:
            table.check_ranges()
        burst = [table for table in self._tables if table.reservation is None]
        open_pages = {table.pages[-1].page_id for table in burst if table.has_open_page}
        promised = sum(table.num_promised for table in burst)
        promised += sum(self._pages.num_owners(page_id) - 1 for page_id in open_pages)
        assert promised == self._num_promised, "a promise is not counted"
        assert promised >= 0
        assert self._num_unpromised >= 0, "promises and the sessions' pages are not covered"
        self._sessions.check()
        for reservation in self._sessions:
            self._check_reservation(reservation)

    def check_prefixes(self) -> None:
        """Prove that the prefix cache is in order. Slow: for tests."""
        self._pages.check_prefixes()

    def _check_reservation(self, reservation: PageReservation) -> None:
        tables = [table for table in self._tables if table.reservation is reservation]
        assert len({page.page_id for table in tables for page in table.pages}) == reservation.num_taken
        assert sum(table.num_promised for table in tables) == reservation.num_promised

    @property
    def _num_unpromised(self) -> int:
        return self._pages.num_free + self._pages.num_cached - self._num_promised - self._sessions.num_untaken

    def _pages_for(self, num_tokens: int) -> int:
        return num_pages_for(num_tokens, self._page_size)

    def _shares_open_page(self, table: PagedTable) -> bool:
        """Whether a copy is promised for the page that a table's next token goes into."""
        return table.has_open_page and self._pages.num_owners(table.pages[-1].page_id) > 1

    def _own(self, table: PageTable) -> PagedTable:
        assert isinstance(table, PagedTable)
        assert table in self._tables, "released before, or made by another pool"
        return table

    def _add(self, table: PagedTable) -> PagedTable:
        self._tables.add(table)
        return table

    def _settle(self, table: PagedTable, num_pages: int) -> None:
        """Take pages off a table's promise: it has them now."""
        assert table.num_promised >= num_pages, "grew beyond its promise"
        table.num_promised -= num_pages
        self._num_promised -= num_pages

    def _promise_again(self, table: PagedTable, dropped: Sequence[PageRange]) -> None:
        """Promise a table the pages that it is about to give back; none of those it wrote in may be anybody else's."""
        changed = [*dropped, *(table.pages[-1:] if table.has_open_page else [])]
        for page in changed:
            assert self._pages.num_owners(page.page_id) == 1, "takes back tokens that others share"
            assert not self._pages.is_published(page.page_id), "takes back tokens that were published"
        table.num_promised += len(dropped)
        if table.reservation is not None:
            table.reservation.num_promised += len(dropped)
        else:
            self._num_promised += len(dropped)

    def _take_page(self, table: PagedTable) -> int:
        """A page of the table's own, which is counted as taken from its reservation if it has one."""
        if table.reservation is not None:
            is_promised = table.num_promised > 0
            table.num_promised -= is_promised
            self._sessions.take(table.reservation, is_promised=is_promised)
        return self._pages.take()

    def _release_pages(self, table: PagedTable, pages: Sequence[PageRange]) -> None:
        for page in reversed(pages):  # the deepest first
            is_free = self._pages.release(page.page_id)
            if is_free and table.reservation is not None:
                self._sessions.give_back(table.reservation)
