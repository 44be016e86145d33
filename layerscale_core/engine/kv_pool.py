"""The default KV pool: pages with reference counts, promised at admission and taken when needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from layerscale_core.engine.prefix_cache import PrefixCache
from layerscale_core.specs.kv_pool import PageCopy, PageRange, PageTable, PoolStats, PrefixMiss, Reservation


@dataclass(eq=False, slots=True)
class PageReservation:
    """A session's own pages.

    Attributes:
        num_taken: pages that its tables hold, each counted once.
        num_promised: pages promised to forks and not yet taken.
    """

    num_pages: int
    num_taken: int = 0
    num_promised: int = 0

    @property
    def num_left(self) -> int:
        """Pages that are neither taken nor promised to a fork."""
        return self.num_pages - self.num_taken - self.num_promised


@dataclass(eq=False, slots=True)
class PagedTable:
    """One sequence's pages.

    Attributes:
        num_promised: pages this table may still take; of a reserved table beside whatever its reservation has left.
        num_inherited: its first pages, full ones, whose tokens another sequence computed.
        is_whole: no token was dropped from the front.
        num_sealed: its first pages, to which nothing is added although the last of them need not be full.
        is_promised: what it may grow to is promised to it, also what it gave back; otherwise it takes what its
            reservation has left.
    """

    num_promised: int
    pages: list[PageRange] = field(default_factory=list)
    num_tokens: int = 0
    num_inherited: int = 0
    is_whole: bool = True
    reservation: PageReservation | None = None
    num_sealed: int = 0
    is_promised: bool = True


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
        self._num_pages = num_pages
        self._num_session_pages = num_session_pages
        self._references = np.zeros(num_pages, np.int32)
        # A stack whose top is at index _num_free: the page freed last is taken next, while the caches still know it.
        self._free = np.arange(num_pages, dtype=np.int32)[::-1].copy()
        self._num_free = num_pages
        self._num_promised = 0
        self._num_reserved = 0
        self._num_taken_by_sessions = 0
        self._tables: set[PagedTable] = set()
        self._reservations: set[PageReservation] = set()
        self._prefixes = PrefixCache(num_pages, page_size)

    @property
    def page_size(self) -> int:
        """Tokens per page."""
        return self._page_size

    def can_admit(self, max_tokens: int) -> bool:
        """Whether a sequence that may grow to ``max_tokens`` can be promised its pages now."""
        return self._pages_for(max_tokens) <= self._num_unpromised

    def fits_ever(self, max_tokens: int) -> bool:
        """Whether such a sequence could be admitted to an empty pool. Any thread."""
        return self._pages_for(max_tokens) <= self._num_pages - self._num_session_pages

    def admit(self, max_tokens: int) -> PagedTable:
        """Promise a sequence its pages up to ``max_tokens``; returns its empty table."""
        assert self.can_admit(max_tokens), "admitted without asking"
        return self._add_table(PagedTable(num_promised=self._pages_for(max_tokens)))

    def can_reserve(self, num_pages: int) -> bool:
        """Whether as many of the sessions' pages are not yet reserved."""
        return num_pages <= self._num_session_pages - self._num_reserved

    def reserve(self, num_pages: int) -> PageReservation:
        """Set sessions' pages aside."""
        assert self.can_reserve(num_pages), "reserved without asking"
        reservation = PageReservation(num_pages)
        self._num_reserved += num_pages
        self._reservations.add(reservation)
        return reservation

    def release_reservation(self, reservation: Reservation) -> None:
        """Give a reservation back. Every table in it was released before."""
        own = self._own_reservation(reservation)
        assert own.num_taken == own.num_promised == 0, "a table of the reservation is not released"
        self._num_reserved -= own.num_pages
        self._reservations.remove(own)

    def admit_reserved(self, reservation: Reservation) -> PagedTable:
        """An empty table that takes its pages from a reservation, as long as some are left there."""
        return self._add_table(PagedTable(0, reservation=self._own_reservation(reservation), is_promised=False))

    def can_fork(self, table: PageTable, max_tokens: int) -> bool:
        """Whether a fork that may grow to ``max_tokens`` can be promised what it does not share."""
        table = self._own(table)
        num_available = self._num_unpromised if table.reservation is None else table.reservation.num_left
        return self._pages_to_grow(table, max_tokens) + self._has_open_page(table) <= num_available

    def fork(self, table: PageTable, max_tokens: int, *, num_tokens: int | None = None) -> PagedTable:
        """Make a sequence that begins as a copy of another; shares its pages, copies none."""
        table = self._own(table)
        if table.reservation is not None:
            return self._fork_reserved(table, max_tokens, table.num_tokens if num_tokens is None else num_tokens)
        assert self.can_fork(table, max_tokens), "forked without asking"
        assert num_tokens is None
        pages = [replace(page) for page in table.pages]
        for page in pages:
            self._references[page.page_id] += 1
        num_open = int(self._has_open_page(table))
        self._num_promised += num_open
        num_promised, num_full = self._pages_to_grow(table, max_tokens), len(pages) - num_open
        return self._add_table(PagedTable(num_promised, pages, table.num_tokens, num_full, table.is_whole))

    def reuse_prefix(self, table: PageTable, token_ids: Sequence[int], namespace: str) -> PrefixMiss | None:
        """Begin an empty table with the longest cached prefix of ``token_ids``, in whole pages."""
        table = self._own(table)
        assert not table.pages, "a prefix comes first"
        page_ids, miss = self._prefixes.find(token_ids, namespace)
        self._settle(table, len(page_ids))
        for page_id in page_ids:
            self._references[page_id] += 1
            self._prefixes.mark_busy(page_id)
            table.pages.append(PageRange(page_id, 0, self._page_size))
        table.num_inherited = len(page_ids)
        table.num_tokens = len(page_ids) * self._page_size
        return miss

    def publish(self, table: PageTable, token_ids: Sequence[int], namespace: str) -> None:
        """Let later sequences reuse a table's full pages, also after its release, until memory is needed."""
        table = self._own(table)
        if table.is_whole:
            num_full = min(table.num_tokens, len(token_ids)) // self._page_size
            page_ids = [page.page_id for page in table.pages[:num_full]]
            self._prefixes.publish(token_ids, namespace, page_ids)

    def withdraw(self, table: PageTable) -> None:
        """Take back what was published of the pages that this sequence computed: they may be bad."""
        table = self._own(table)
        for page in table.pages[table.num_inherited :]:
            self._push_free(self._prefixes.withdraw(page.page_id))

    def make_writable(self, table: PageTable) -> PageCopy | None:
        """Give a sequence its own last page if the next token goes into one that is shared."""
        table = self._own(table)
        if not self._has_open_page(table) or self._references[table.pages[-1].page_id] == 1:
            return None
        shared = table.pages[-1]
        if table.reservation is None:
            self._num_promised -= 1
        own = replace(shared, page_id=self._take_page(table))
        self._references[shared.page_id] -= 1
        table.pages[-1] = own
        return PageCopy(shared.page_id, own.page_id)

    def append(self, table: PageTable, num_tokens: int) -> list[int]:
        """Extend a sequence by new tokens; returns their slots in order. Takes pages from the promise."""
        table = self._own(table)
        slots: list[int] = []
        while len(slots) < num_tokens:
            if not self._has_open_page(table):
                if table.reservation is None:
                    self._settle(table, 1)
                table.pages.append(PageRange(self._take_page(table), 0, 0))
            page = table.pages[-1]
            assert self._references[page.page_id] == 1, "writes into a shared page"
            count = min(self._page_size - page.stop, num_tokens - len(slots))
            first_slot = page.page_id * self._page_size + page.stop
            slots.extend(range(first_slot, first_slot + count))
            page.stop += count
        table.num_tokens += num_tokens
        return slots

    def drop_front(self, table: PageTable, num_tokens: int) -> None:
        """Make a sequence's oldest tokens invalid; of one that is not reserved at least one stays."""
        table = self._own(table)
        num_sealed = sum(page.stop - page.start for page in table.pages[: table.num_sealed])
        num_kept = num_sealed if table.reservation is not None else 1
        assert 0 <= num_tokens <= table.num_tokens - num_kept, "drops more than may go"
        table.num_tokens -= num_tokens
        table.is_whole &= num_tokens == 0
        first = stop = table.num_sealed
        while stop < len(table.pages) and (num_held := table.pages[stop].stop - table.pages[stop].start) <= num_tokens:
            num_tokens -= num_held
            stop += 1
        if num_tokens:
            table.pages[stop].start += num_tokens
        dropped = table.pages[first:stop]
        del table.pages[first:stop]
        table.num_inherited = max(0, table.num_inherited - len(dropped))
        self._drop_pages(table, dropped)

    def begin_page(self, table: PageTable) -> None:
        """Have a reserved table's next token begin a page of its own, which sets what is held so far apart for good."""
        table = self._own(table)
        assert table.reservation is not None
        table.num_sealed = len(table.pages)

    def truncate(self, table: PageTable, num_tokens: int) -> None:
        """Keep the first ``num_tokens`` tokens of a table, whose promise or reservation gets the other pages back."""
        table = self._own(table)
        assert 0 <= num_tokens <= table.num_tokens, "keeps more than there is"
        dropped = _cut(table, num_tokens)
        if table.is_promised:
            self._promise_again(table, dropped)
        self._drop_pages(table, dropped)

    def release(self, table: PageTable) -> None:
        """Give back a sequence's pages and the rest of its promise. Called exactly once per admit or fork."""
        table = self._own(table)
        if table.reservation is not None:
            table.reservation.num_promised -= table.num_promised
        else:
            if self._has_open_page(table) and self._references[table.pages[-1].page_id] > 1:
                self._num_promised -= 1
            self._settle(table, table.num_promised)
        self._tables.remove(table)
        self._drop_pages(table, table.pages)

    def stats(self) -> PoolStats:
        """The counts now."""
        return PoolStats(self._num_pages, self._num_free, self._num_promised, self._prefixes.num_idle)

    def check_integrity(self) -> None:
        """Prove that free + cached + referenced = total, each owner counted, and that promises are covered."""
        owned = [page.page_id for table in self._tables for page in table.pages]
        references = self._count(owned)
        assert np.array_equal(references, self._references), "a reference is not counted, or its owner is gone"
        free = np.bincount(self._free[: self._num_free], minlength=self._num_pages)
        cached = self._count(self._prefixes.idle_page_ids)
        assert np.all(free + cached + (references > 0) == 1), "free, cached and referenced pages overlap or miss one"
        unreferenced = self._count(self._prefixes.page_ids) * (references == 0)
        assert np.array_equal(cached, unreferenced), "a page of the prefix cache can never be evicted"
        burst = [table for table in self._tables if table.reservation is None]
        open_pages = {table.pages[-1].page_id for table in burst if self._has_open_page(table)}
        promised = sum(table.num_promised for table in burst)
        promised += sum(int(references[page_id]) - 1 for page_id in open_pages)
        assert promised == self._num_promised, "a promise is not counted"
        assert promised >= 0
        assert self._num_unpromised >= 0, "promises and the sessions' pages are not covered"
        for reservation in self._reservations:
            self._check_reservation(reservation)
        assert sum(reservation.num_taken for reservation in self._reservations) == self._num_taken_by_sessions
        assert sum(reservation.num_pages for reservation in self._reservations) == self._num_reserved
        assert self._num_reserved <= self._num_session_pages, "sessions have reserved more than their share"
        for table in self._tables:
            self._check_ranges(table)

    def check_prefixes(self) -> None:
        """Prove that the prefix cache is in order. Slow: for tests."""
        self._prefixes.check_tree()

    def _check_ranges(self, table: PagedTable) -> None:
        assert all(0 <= page.start < page.stop <= self._page_size for page in table.pages), "an empty or wild range"
        assert 0 <= table.num_sealed <= len(table.pages)
        sealed, growing = table.pages[: table.num_sealed], table.pages[table.num_sealed :]
        assert all(page.stop == self._page_size for page in (*sealed[:-1], *growing[:-1])), "a gap before the last page"
        assert all(page.start == 0 for page in (*sealed[1:], *growing[1:])), "a gap after the first page"
        assert sum(page.stop - page.start for page in table.pages) == table.num_tokens, "tokens are miscounted"

    def _check_reservation(self, reservation: PageReservation) -> None:
        tables = [table for table in self._tables if table.reservation is reservation]
        assert len({page.page_id for table in tables for page in table.pages}) == reservation.num_taken
        assert sum(table.num_promised for table in tables) == reservation.num_promised
        assert reservation.num_left >= 0, "a reservation is overdrawn"

    @property
    def _num_unpromised(self) -> int:
        kept_for_sessions = self._num_session_pages - self._num_taken_by_sessions
        return self._num_free + self._prefixes.num_idle - self._num_promised - kept_for_sessions

    def _fork_reserved(self, table: PagedTable, max_tokens: int, num_tokens: int) -> PagedTable:
        assert table.reservation is not None
        fork = replace(table, num_promised=0, is_promised=True, pages=[replace(page) for page in table.pages])
        _cut(fork, num_tokens)
        for page in fork.pages:
            self._references[page.page_id] += 1
        fork.num_promised = self._pages_to_grow(fork, max_tokens) + self._has_open_page(fork)
        table.reservation.num_promised += fork.num_promised
        assert table.reservation.num_left >= 0, "forked without asking"
        self._tables.add(fork)
        return fork

    def _count(self, page_ids: Iterable[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """How often each page occurs."""
        return np.bincount(np.fromiter(page_ids, np.int64), minlength=self._num_pages)

    def _pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self._page_size)

    def _pages_to_grow(self, table: PagedTable, max_tokens: int) -> int:
        """Pages beyond the last one that a table takes until it holds ``max_tokens``."""
        room = self._page_size - table.pages[-1].stop if self._has_open_page(table) else 0
        return self._pages_for(max(0, max_tokens - table.num_tokens - room))

    def _has_open_page(self, table: PagedTable) -> bool:
        """Whether the next token goes into the last page."""
        return len(table.pages) > table.num_sealed and table.pages[-1].stop < self._page_size

    def _own(self, table: PageTable) -> PagedTable:
        assert isinstance(table, PagedTable)
        assert table in self._tables, "released before, or made by another pool"
        return table

    def _add_table(self, table: PagedTable) -> PagedTable:
        self._num_promised += table.num_promised
        self._tables.add(table)
        return table

    def _settle(self, table: PagedTable, num_pages: int) -> None:
        """Take pages off a table's promise: it gets them now, or never."""
        assert table.num_promised >= num_pages, "grew beyond its promise"
        table.num_promised -= num_pages
        self._num_promised -= num_pages

    def _promise_again(self, table: PagedTable, dropped: Sequence[PageRange]) -> None:
        """Promise a table the pages that it is about to give back; none of those it wrote in may be anybody else's."""
        changed = [*dropped, *(table.pages[-1:] if self._has_open_page(table) else [])]
        for page in changed:
            assert self._references[page.page_id] == 1, "takes back tokens that others share"
            assert page.page_id not in self._prefixes, "takes back tokens that were published"
        table.num_promised += len(dropped)
        if table.reservation is not None:
            table.reservation.num_promised += len(dropped)
        else:
            self._num_promised += len(dropped)

    def _own_reservation(self, reservation: Reservation) -> PageReservation:
        assert isinstance(reservation, PageReservation)
        assert reservation in self._reservations, "released before, or made by another pool"
        return reservation

    def _take_page(self, table: PagedTable) -> int:
        """A page of one's own: a free one, else the one that was cached for longest without use."""
        if table.reservation is not None:
            self._take_from(table.reservation, table)
        if not self._num_free:
            self._push_free(self._prefixes.evict())
        self._num_free -= 1
        page_id = int(self._free[self._num_free])
        self._references[page_id] = 1
        return page_id

    def _take_from(self, reservation: PageReservation, table: PagedTable) -> None:
        """Count a page that a reserved table takes: of its promise, else of what is left."""
        if table.num_promised:
            table.num_promised -= 1
            reservation.num_promised -= 1
        assert reservation.num_left > 0, "outgrew its reservation"
        reservation.num_taken += 1
        self._num_taken_by_sessions += 1

    def _drop_pages(self, table: PagedTable, pages: Sequence[PageRange]) -> None:
        for page in reversed(pages):  # the cache wants the deepest first
            assert self._references[page.page_id] > 0, "freed twice"
            self._references[page.page_id] -= 1
            if self._references[page.page_id] == 0 and not self._prefixes.mark_idle(page.page_id):
                self._push_free([page.page_id])
                if table.reservation is not None:
                    table.reservation.num_taken -= 1
                    self._num_taken_by_sessions -= 1

    def _push_free(self, page_ids: Sequence[int]) -> None:
        for page_id in page_ids:
            self._free[self._num_free] = page_id
            self._num_free += 1


def _cut(table: PagedTable, num_tokens: int) -> list[PageRange]:
    """Shorten a table to its first ``num_tokens`` tokens; returns the pages that hold none of them."""
    surplus = table.num_tokens - num_tokens
    num_pages = len(table.pages)
    while surplus and (num_held := table.pages[num_pages - 1].stop - table.pages[num_pages - 1].start) <= surplus:
        surplus -= num_held
        num_pages -= 1
    if surplus:
        table.pages[num_pages - 1].stop -= surplus
    if num_pages < table.num_sealed + bool(surplus):
        table.num_sealed = 0  # what was set apart is no longer whole
    dropped = table.pages[num_pages:]
    del table.pages[num_pages:]
    table.num_tokens = num_tokens
    return dropped
