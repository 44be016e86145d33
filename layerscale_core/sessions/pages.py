"""The pages of the KV pool that a session has reserved, and its page table in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscale_core.memory_plan import pages_of_session
from layerscale_core.specs.kv_pool import KVPool, PageTable, num_pages_for

_NUM_COPIED = 1
"""The page that is written first may have to be copied."""


class SessionPages:
    """A reservation, the table of what is computed, and forks of it. Thread: engine.

    Args:
        context_len: most tokens.
    """

    def __init__(self, pool: KVPool, context_len: int) -> None:
        self._pool = pool
        self._num_reserved = pages_of_session(context_len, pool.page_size)
        self._reservation = pool.reserve(self._num_reserved)
        self.table: PageTable = pool.admit_reserved(self._reservation)

    def release(self) -> None:
        """Give everything back; nothing of it runs any more."""
        self._pool.release(self.table)
        self._pool.release_reservation(self._reservation)

    @property
    def num_tokens(self) -> int:
        """Tokens whose keys and values are in the pages."""
        return self.table.num_tokens

    @property
    def num_in_open_page(self) -> int:
        """Tokens in the last page, if it is not full."""
        last = self.table.pages[-1] if self.table.pages else None
        return 0 if last is None or last.stop == self._pool.page_size else last.stop - last.start

    def ids_behind(self, num_tokens: int) -> NDArray[np.int32]:
        """The pages behind those that hold the first tokens."""
        pages = self.table.pages[self._num_pages_of(num_tokens) :]
        return np.array([page.page_id for page in pages], np.int32)

    def has_room(self, num_tokens: int) -> bool:
        """Whether so many more tokens find their pages, in the table or in a fork."""
        return self._reservation.num_left >= num_pages_for(num_tokens, self._pool.page_size) + _NUM_COPIED

    def begin_page(self) -> None:
        """Have the next token begin a page of its own."""
        self._pool.begin_page(self.table)

    def truncate(self, num_tokens: int) -> None:
        """Keep at most the first ``num_tokens``."""
        if num_tokens < self.num_tokens:
            self._pool.truncate(self.table, num_tokens)

    def drop_front(self, num_tokens: int) -> None:
        """Drop the oldest tokens after the page that was begun, or all that there are."""
        if num_tokens == self.num_tokens:
            self.truncate(0)
        elif num_tokens:
            self._pool.drop_front(self.table, num_tokens)

    def max_fork_len(self, num_shared: int) -> int:
        """Tokens that a fork of the first ones can grow to, if it is the only one."""
        num_pages = self._num_reserved - self._num_pages_of(num_shared) - _NUM_COPIED
        return num_shared + num_pages * self._pool.page_size

    def fork(self, num_shared: int, max_tokens: int) -> PageTable:
        """A fork of the first tokens that may grow to ``max_tokens``; there is room for it."""
        return self._pool.fork(self.table, max_tokens, num_tokens=num_shared)

    def release_fork(self, fork: PageTable) -> None:
        """Give a fork back; nothing runs on it any more."""
        self._pool.release(fork)

    def _num_pages_of(self, num_tokens: int) -> int:
        """How many of the table's pages hold its first tokens."""
        num_pages = num_held = 0
        while num_held < num_tokens:
            page = self.table.pages[num_pages]
            num_held += page.stop - page.start
            num_pages += 1
        return num_pages
