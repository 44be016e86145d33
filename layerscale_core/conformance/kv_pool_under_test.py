"""The KV pool that its contracts run on, and what they look at."""

from __future__ import annotations

import pytest

from layerscale_core.specs import KVLayout, KVPool, PageTable

PAGE_SIZE = 4
NUM_PAGES = 12
CAPACITY = PAGE_SIZE * NUM_PAGES
PROMPT = tuple(range(100, 100 + 3 * PAGE_SIZE + 1))
"""Three whole pages and the token that is always computed."""


def slots_of(table: PageTable) -> list[int]:
    """A table's valid slots in order."""
    return [page.page_id * PAGE_SIZE + offset for page in table.pages for offset in range(page.start, page.stop)]


class KVPoolUnderTest:
    """A pool of a few small pages."""

    def make_pool(self, layout: KVLayout) -> KVPool:
        """The pool under test, as ``layerscale_make_kv_pool`` makes it."""
        raise NotImplementedError

    def make_session_pool(self, num_session_pages: int) -> KVPool:
        """A pool that keeps pages for sessions."""
        layout = KVLayout(
            NUM_PAGES, PAGE_SIZE, num_layers=1, num_kv_heads=1, head_dim=8, num_session_pages=num_session_pages
        )
        return self.make_pool(layout)

    @pytest.fixture
    def pool(self) -> KVPool:
        """An empty pool, all for requests."""
        return self.make_session_pool(0)
