"""One sequence's pages in order: its valid slots, and how they grow and shrink."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from layerscale_core.engine.reservations import PageReservation
from layerscale_core.specs.kv_pool import PageRange, num_pages_for


@dataclass(eq=False, slots=True)
class PagedTable:
    """A page table (PagedAttention, arXiv:2309.06180). The pool decides; this is what it decides about.

    Attributes:
        num_promised: pages this table may still take; of a reserved table beside whatever its reservation has left.
        num_inherited: its first pages, full ones, whose tokens another sequence computed.
        is_whole: no token was dropped from the front.
        num_sealed: its first pages, to which nothing is added although the last of them need not be full.
        is_promised: what it may grow to is promised to it, also what it gave back; otherwise it takes what its
            reservation has left.
    """

    page_size: int
    num_promised: int
    pages: list[PageRange] = field(default_factory=list)
    num_tokens: int = 0
    num_inherited: int = 0
    is_whole: bool = True
    reservation: PageReservation | None = None
    num_sealed: int = 0
    is_promised: bool = True

    @property
    def has_open_page(self) -> bool:
        """Whether the next token goes into the last page."""
        return len(self.pages) > self.num_sealed and self.pages[-1].stop < self.page_size

    def num_pages_to_grow(self, max_tokens: int) -> int:
        """Pages beyond the last one that it takes until it holds ``max_tokens``."""
        room = self.page_size - self.pages[-1].stop if self.has_open_page else 0
        return num_pages_for(max(0, max_tokens - self.num_tokens - room), self.page_size)

    def copy(self) -> PagedTable:
        """The same slots, promised nothing yet."""
        return replace(self, num_promised=0, is_promised=True, pages=[replace(page) for page in self.pages])

    def fill(self, max_tokens: int) -> range:
        """Extend it by as many tokens as go into its last page, at most ``max_tokens``; returns their slots."""
        page = self.pages[-1]
        num_tokens = min(self.page_size - page.stop, max_tokens)
        first_slot = page.page_id * self.page_size + page.stop
        page.stop += num_tokens
        self.num_tokens += num_tokens
        return range(first_slot, first_slot + num_tokens)

    def drop_front(self, num_tokens: int) -> list[PageRange]:
        """Make the oldest tokens after the sealed pages invalid; returns the pages that hold no other."""
        self.num_tokens -= num_tokens
        self.is_whole &= num_tokens == 0
        first = stop = self.num_sealed
        while stop < len(self.pages) and (num_held := _num_held(self.pages[stop])) <= num_tokens:
            num_tokens -= num_held
            stop += 1
        if num_tokens:
            self.pages[stop].start += num_tokens
        dropped = self.pages[first:stop]
        del self.pages[first:stop]
        self.num_inherited = max(0, self.num_inherited - len(dropped))
        return dropped

    def cut(self, num_tokens: int) -> list[PageRange]:
        """Keep the first ``num_tokens`` tokens; returns the pages that hold none of them."""
        surplus = self.num_tokens - num_tokens
        num_pages = len(self.pages)
        while surplus and (num_held := _num_held(self.pages[num_pages - 1])) <= surplus:
            surplus -= num_held
            num_pages -= 1
        if surplus:
            self.pages[num_pages - 1].stop -= surplus
        if num_pages < self.num_sealed + bool(surplus):
            self.num_sealed = 0  # what was set apart is no longer whole
        dropped = self.pages[num_pages:]
        del self.pages[num_pages:]
        self.num_tokens = num_tokens
        return dropped

    @property
    def num_sealed_tokens(self) -> int:
        """Tokens in the sealed pages."""
        return sum(map(_num_held, self.pages[: self.num_sealed]))

    def check_ranges(self) -> None:
        """Prove that the pages' valid ranges have no gap but the one after the sealed pages.

        Raises:
            AssertionError: with what is wrong.
        """
        assert all(0 <= page.start < page.stop <= self.page_size for page in self.pages), "an empty or wild range"
        assert 0 <= self.num_sealed <= len(self.pages)
        sealed, growing = self.pages[: self.num_sealed], self.pages[self.num_sealed :]
        assert all(page.stop == self.page_size for page in (*sealed[:-1], *growing[:-1])), "a gap before the last page"
        assert all(page.start == 0 for page in (*sealed[1:], *growing[1:])), "a gap after the first page"
        assert sum(map(_num_held, self.pages)) == self.num_tokens, "tokens are miscounted"


def _num_held(page: PageRange) -> int:
    """Valid slots of a page."""
    return page.stop - page.start
