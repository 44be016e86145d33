"""The pages of a KV pool, each by who needs it: nobody, sequences, or the prefix cache alone."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from layerscale_core.engine.prefix_cache import PrefixCache
from layerscale_core.specs.kv_pool import PrefixMiss


class Pages:
    """Reference counts, the free pages, and the prefix cache. Thread: engine.

    A page is free, referenced by tables, or cached: referenced by none and kept for its prefix, until it is needed.
    ``take`` and ``share`` refer to pages, ``release`` is the other half of both.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self._num_references = array("i", [0] * num_pages)
        # The page freed last is taken next, while the processor's caches still know it.
        self._free = array("i", reversed(range(num_pages)))
        self._prefixes = PrefixCache(num_pages, page_size)

    @property
    def num_free(self) -> int:
        """Pages that nobody needs."""
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """Pages that nobody refers to and that are kept for their prefix."""
        return self._prefixes.num_idle

    def num_owners(self, page_id: int) -> int:
        """Tables that refer to a page."""
        return self._num_references[page_id]

    def is_published(self, page_id: int) -> bool:
        """Whether others may find a page by its prefix."""
        return page_id in self._prefixes

    def take(self) -> int:
        """A page of one's own: a free one, else the one that was cached for longest without use."""
        if not self._free:
            self._free.extend(self._prefixes.evict())
        page_id = self._free.pop()
        self._num_references[page_id] = 1
        return page_id

    def share(self, page_ids: Iterable[int]) -> None:
        """One more table refers to these pages."""
        for page_id in page_ids:
            self._num_references[page_id] += 1

    def release(self, page_id: int) -> bool:
        """One table less refers to a page; returns whether it is free now. The cache wants the deepest page first."""
        assert self._num_references[page_id] > 0, "freed twice"
        self._num_references[page_id] -= 1
        is_free = self._num_references[page_id] == 0 and not self._prefixes.mark_idle(page_id)
        if is_free:
            self._free.append(page_id)
        return is_free

    def share_prefix(self, token_ids: Sequence[int], namespace: str) -> tuple[list[int], PrefixMiss | None]:
        """Refer to the pages of the longest cached prefix; see ``PrefixCache.find``."""
        page_ids, miss = self._prefixes.find(token_ids, namespace)
        self.share(page_ids)
        for page_id in page_ids:
            self._prefixes.mark_busy(page_id)
        return page_ids, miss

    def publish(self, token_ids: Sequence[int], namespace: str, page_ids: Sequence[int]) -> None:
        """Let others find a table's pages by their prefix; see ``PrefixCache.publish``."""
        self._prefixes.publish(token_ids, namespace, page_ids)

    def withdraw(self, page_id: int) -> None:
        """Let nobody find a page any more, nor what continues it."""
        self._free.extend(self._prefixes.withdraw(page_id))

    def check(self, owned: Iterable[int]) -> None:
        """Prove that free + cached + referenced = total, each owner counted.

        Args:
            owned: the pages of all tables, one after the other.

        Raises:
            AssertionError: with what is wrong.
        """
        references = self._count(owned)
        assert np.array_equal(references, self._num_references), "a reference is not counted, or its owner is gone"
        free = np.bincount(np.asarray(self._free), minlength=self.num_pages)
        cached = self._count(self._prefixes.idle_page_ids)
        assert np.all(free + cached + (references > 0) == 1), "free, cached and referenced pages overlap or miss one"
        unreferenced = self._count(self._prefixes.page_ids) * (references == 0)
        assert np.array_equal(cached, unreferenced), "a page of the prefix cache can never be evicted"

    def check_prefixes(self) -> None:
        """Prove that the prefix cache is in order. Slow: for tests."""
        self._prefixes.check_tree()

    def _count(self, page_ids: Iterable[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """How often each page occurs."""
        return np.bincount(np.fromiter(page_ids, np.int64), minlength=self.num_pages)
