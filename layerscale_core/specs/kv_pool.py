"""The KV pool's bookkeeping: which sequence owns which page. Plain integers; the memory itself is the executor's."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class PageRange:
    """A page of a sequence's table with its valid offsets ``[start, stop)``, in tokens."""

    page_id: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PageCopy:
    """A page to copy whole, all layers, before the step that writes into the target."""

    source_id: int
    target_id: int


class MissReason(enum.Enum):
    """Why a prefix was not found in the cache."""

    TOO_SHORT = "too_short"
    """There is no whole page before the last token, which is always computed."""
    NEVER_SEEN = "never_seen"
    """Nothing in the cache begins, or goes on, like this."""
    DIVERGED = "diverged"
    """What the cache holds goes on with another token there."""
    EVICTED = "evicted"
    """It was cached, and its memory was needed."""
    OTHER_NAMESPACE = "other_namespace"
    """It is cached for somebody else."""
    BYPASSED = "bypassed"
    """The request needs every prompt token's logits, so that all are computed."""


@dataclass(frozen=True, slots=True)
class PrefixMiss:
    """Where a cached prefix ended, and why.

    Attributes:
        token_index: the first token that was not found. Whole pages are shared, so that up to ``page_size - 1`` tokens
            before it are computed as well.
    """

    token_index: int
    reason: MissReason


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts of pages. The rest, beside free and cached ones, is referenced by sequences."""

    total_pages: int
    free_pages: int
    reserved_pages: int
    """Pages promised to admitted sequences: free ones, or cached ones that will be evicted for them."""
    cached_pages: int = 0
    """Pages no sequence refers to that keep a prefix for later, until they are needed."""


class PageTable(Protocol):
    """One sequence's pages in order. Made by the pool; used by the engine thread alone."""

    @property
    def pages(self) -> list[PageRange]:
        """The pages with their valid ranges; read by the step builder."""
        ...

    @property
    def num_tokens(self) -> int:
        """Valid slots over all pages: the context length."""
        ...


class Reservation(Protocol):
    """A session's own pages: its table and the forks of it take them, and nobody else."""

    @property
    def num_left(self) -> int:
        """Pages that are neither taken nor promised to a fork."""
        ...


def num_pages_for(num_tokens: int, page_size: int) -> int:
    """Pages that hold so many tokens from the first slot on."""
    return -(-num_tokens // page_size)


class KVPool(Protocol):
    """Pages, reference-counted and copy-on-write. What is admitted cannot run out."""

    @property
    def page_size(self) -> int:
        """Tokens per page."""
        ...

    def can_admit(self, max_tokens: int) -> bool:
        """Whether a sequence that may grow to ``max_tokens`` can be promised its pages now.

        Says yes whenever nothing is admitted and ``fits_ever`` does: cached pages never stand in the way.
        """
        ...

    def fits_ever(self, max_tokens: int) -> bool:
        """Whether such a sequence could be admitted to an empty pool."""
        ...

    def admit(self, max_tokens: int) -> PageTable:
        """Promise a sequence its pages up to ``max_tokens``; returns its empty table.

        Raises:
            AssertionError: ``can_admit`` was not asked or said no.
        """
        ...

    def can_reserve(self, num_pages: int) -> bool:
        """Whether as many of the sessions' pages are not yet reserved."""
        ...

    def reserve(self, num_pages: int) -> Reservation:
        """Set sessions' pages aside.

        Raises:
            AssertionError: ``can_reserve`` was not asked or said no.
        """
        ...

    def release_reservation(self, reservation: Reservation) -> None:
        """Give a reservation back. Every table in it was released before."""
        ...

    def admit_reserved(self, reservation: Reservation) -> PageTable:
        """An empty table that takes its pages from a reservation, as long as some are left there."""
        ...

    def can_fork(self, table: PageTable, max_tokens: int) -> bool:
        """Whether a fork that may grow to ``max_tokens`` can be promised what it does not share."""
        ...

    def fork(self, table: PageTable, max_tokens: int, *, num_tokens: int | None = None) -> PageTable:
        """Make a sequence that begins as a copy of another; shares its pages, copies none.

        The fork of a reserved table is promised pages of the same reservation.

        Args:
            max_tokens: what the fork may grow to, the shared tokens included.
            num_tokens: only so many of its first tokens; None = all. Fewer only of a reserved table.

        Raises:
            AssertionError: ``can_fork`` was not asked or said no.
        """
        ...

    def reuse_prefix(self, table: PageTable, token_ids: Sequence[int], namespace: str) -> PrefixMiss | None:
        """Begin an empty table with the longest cached prefix of ``token_ids``, in whole pages.

        Never all of the tokens: the last one is left to be computed, for its logits. The pages found come off the
        promise; ``table.num_tokens`` says how much was found.

        Args:
            namespace: whose prefixes are looked at.

        Returns:
            Why it was not more; None where every whole page was found.
        """
        ...

    def publish(self, table: PageTable, token_ids: Sequence[int], namespace: str) -> None:
        """Let later sequences reuse a table's full pages, also after its release, until memory is needed.

        May be called again as the sequence grows. A pool may publish less than it is given.

        Args:
            token_ids: whose keys and values the table holds, from its first token on; known to be good.
        """
        ...

    def withdraw(self, table: PageTable) -> None:
        """Take back what was published of the pages that this sequence computed: they may be bad."""
        ...

    def make_writable(self, table: PageTable) -> PageCopy | None:
        """Give a sequence its own last page if the next token goes into one that is shared.

        Called before each ``append``. The page comes out of what admission or fork promised.

        Returns:
            The copy to make before the step, after which the table is changed in its last page; or None.
        """
        ...

    def append(self, table: PageTable, num_tokens: int) -> list[int]:
        """Extend a sequence by new tokens; returns their slots in order. Takes pages from the promise.

        Raises:
            AssertionError: its last page is shared, or it outgrows its promise.
        """
        ...

    def drop_front(self, table: PageTable, num_tokens: int) -> None:
        """Make a sequence's oldest tokens invalid. Pages that hold no other are given back.

        The promise stays as it is, and a sequence without its beginning publishes nothing. Of a reserved table all may
        go but what ``begin_page`` has set apart, of any other at least one stays.
        """
        ...

    def begin_page(self, table: PageTable) -> None:
        """Have a reserved table's next token begin a page of its own, which sets what is held so far apart for good."""
        ...

    def truncate(self, table: PageTable, num_tokens: int) -> None:
        """Keep the first ``num_tokens`` tokens of a table.

        The other pages go back to where they came from: to what the table's reservation has left, or, of a table that
        was admitted or forked, to its promise. Of the latter only tokens may go that were appended since, in pages that
        are neither shared nor published.
        """
        ...

    def release(self, table: PageTable) -> None:
        """Give back a sequence's pages and the rest of its promise. Called exactly once per admit or fork."""
        ...

    def stats(self) -> PoolStats:
        """The counts now."""
        ...

    def check_integrity(self) -> None:
        """Prove that free + cached + referenced = total, each owner counted, and that promises are covered.

        Raises:
            AssertionError: with what is wrong.
        """
        ...
