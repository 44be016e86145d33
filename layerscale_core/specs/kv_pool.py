"""The KV pool's bookkeeping: which sequence owns which page. Plain integers; the memory itself is the executor's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class PageRange:
    """A page of a sequence's table with its valid offsets ``[start, stop)``, in tokens."""

    page_id: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts of pages."""

    total_pages: int
    free_pages: int
    reserved_pages: int
    """Free pages already promised to admitted sequences."""


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


class KVPool(Protocol):
    """Pages, reference-counted. What is admitted cannot run out."""

    @property
    def page_size(self) -> int:
        """Tokens per page."""
        ...

    def can_admit(self, max_tokens: int) -> bool:
        """Whether a sequence that may grow to ``max_tokens`` can be promised its pages now."""
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

    def append(self, table: PageTable, num_tokens: int) -> list[int]:
        """Extend a sequence by new tokens; returns their slots in order. Takes free pages from the promise."""
        ...

    def release(self, table: PageTable) -> None:
        """Give back a sequence's pages and the rest of its promise. Called exactly once per admit."""
        ...

    def stats(self) -> PoolStats:
        """The counts now."""
        ...

    def check_integrity(self) -> None:
        """Prove that free + referenced = total, each owner counted, and that promises are covered.

        Raises:
            AssertionError: with what is wrong.
        """
        ...
