"""The contract of a KV pool's bookkeeping."""

from __future__ import annotations

import random

import pytest

from layerscale_core.specs import KVLayout, KVPool, PageTable, PoolStats

PAGE_SIZE = 4
NUM_PAGES = 12
CAPACITY = PAGE_SIZE * NUM_PAGES


def slots_of(table: PageTable, page_size: int) -> list[int]:
    """A table's valid slots in order."""
    return [page.page_id * page_size + offset for page in table.pages for offset in range(page.start, page.stop)]


class KVPoolContract:
    """Every promise of ``KVPool`` and ``PageTable``."""

    def make_pool(self, layout: KVLayout) -> KVPool:
        """The pool under test, as ``layerscale_make_kv_pool`` makes it."""
        raise NotImplementedError

    @pytest.fixture
    def pool(self) -> KVPool:
        """An empty pool of a few small pages."""
        return self.make_pool(KVLayout(NUM_PAGES, PAGE_SIZE, num_layers=1, num_kv_heads=1, head_dim=8))

    def test_starts_empty(self, pool: KVPool) -> None:
        """All pages are free and none is promised."""
        assert pool.page_size == PAGE_SIZE
        assert pool.stats() == PoolStats(total_pages=NUM_PAGES, free_pages=NUM_PAGES, reserved_pages=0)
        pool.check_integrity()

    @pytest.mark.parametrize("num_tokens", [1, PAGE_SIZE, PAGE_SIZE + 1, CAPACITY])
    def test_what_fits_can_be_admitted(self, pool: KVPool, num_tokens: int) -> None:
        """``can_admit`` and ``fits_ever``, up to the last token."""
        assert pool.fits_ever(num_tokens)
        assert pool.can_admit(num_tokens)

    def test_one_token_too_many_never_fits(self, pool: KVPool) -> None:
        """``fits_ever`` and ``can_admit`` say no, and ``admit`` is our own mistake then."""
        assert not pool.fits_ever(CAPACITY + 1)
        assert not pool.can_admit(CAPACITY + 1)
        with pytest.raises(AssertionError):
            pool.admit(CAPACITY + 1)

    def test_pages_kept_for_sessions_go_to_no_request(self) -> None:
        """``num_session_pages`` of the layout: they are not there for ``admit``, however many are free."""
        layout = KVLayout(NUM_PAGES, PAGE_SIZE, num_layers=1, num_kv_heads=1, head_dim=8, num_session_pages=2)
        pool = self.make_pool(layout)
        left = CAPACITY - 2 * PAGE_SIZE
        assert pool.fits_ever(left)
        assert not pool.fits_ever(left + 1)
        assert not pool.can_admit(left + 1)
        table = pool.admit(left)
        assert not pool.can_admit(1)
        pool.append(table, left)
        assert pool.stats() == PoolStats(NUM_PAGES, free_pages=2, reserved_pages=0)
        pool.check_integrity()

    def test_a_full_pool_admits_nobody_and_still_says_who_would_fit(self, pool: KVPool) -> None:
        """``fits_ever`` speaks of an empty pool, ``can_admit`` of this one."""
        pool.admit(CAPACITY)
        assert pool.fits_ever(CAPACITY)
        assert not pool.can_admit(1)
        with pytest.raises(AssertionError):
            pool.admit(1)

    def test_admission_promises_pages_and_takes_none(self, pool: KVPool) -> None:
        """``admit``: an empty table, and the promise shows in ``reserved_pages``."""
        table = pool.admit(PAGE_SIZE + 1)
        assert table.pages == []
        assert table.num_tokens == 0
        assert pool.stats() == PoolStats(NUM_PAGES, free_pages=NUM_PAGES, reserved_pages=2)

    @pytest.mark.parametrize("num_tokens", [0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, CAPACITY])
    def test_appending_gives_slots_in_order(self, pool: KVPool, num_tokens: int) -> None:
        """``append``: the new slots are the table's last ones, in pages taken from the promise."""
        table = pool.admit(CAPACITY)
        slots = pool.append(table, num_tokens)
        assert len(slots) == table.num_tokens == num_tokens
        assert slots == slots_of(table, PAGE_SIZE)
        num_taken = -(-num_tokens // PAGE_SIZE)
        assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES - num_taken, NUM_PAGES - num_taken)
        pool.check_integrity()

    def test_appending_fills_a_page_before_it_takes_another(self, pool: KVPool) -> None:
        """A sequence that grows token by token takes as few pages as one that grows at once."""
        table = pool.admit(CAPACITY)
        slots = [slot for _ in range(PAGE_SIZE + 1) for slot in pool.append(table, 1)]
        assert slots == slots_of(table, PAGE_SIZE)
        assert len(table.pages) == 2

    def test_releasing_gives_back_pages_and_promise(self, pool: KVPool) -> None:
        """``release``: the pool is as before, whether or not the sequence grew to its limit."""
        for num_tokens in (0, 1, PAGE_SIZE + 1, CAPACITY):
            table = pool.admit(CAPACITY)
            pool.append(table, num_tokens)
            pool.release(table)
            assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES, 0)
            pool.check_integrity()

    @pytest.mark.parametrize("seed", range(20))
    def test_whoever_is_admitted_can_grow_and_nobody_shares_a_slot(self, pool: KVPool, seed: int) -> None:
        """Any order of admissions, growth and releases keeps promises, slots apart and the counts right."""
        chance = random.Random(seed)  # noqa: S311 (a reproducible schedule, no secret)
        live: list[tuple[PageTable, int]] = []
        for _ in range(200):
            limit = chance.randint(1, CAPACITY // 2)
            if chance.random() < 0.4 and pool.can_admit(limit):
                live.append((pool.admit(limit), limit))
            elif live:
                index = chance.randrange(len(live))
                table, limit = live[index]
                if table.num_tokens == limit or chance.random() < 0.2:
                    pool.release(live.pop(index)[0])
                else:
                    pool.append(table, chance.randint(1, limit - table.num_tokens))
            pool.check_integrity()
            self._check(pool, [table for table, _ in live])
        for table, limit in live:
            pool.append(table, limit - table.num_tokens)
        self._check(pool, [table for table, _ in live])

    def _check(self, pool: KVPool, tables: list[PageTable]) -> None:
        slots = [slot for table in tables for slot in slots_of(table, PAGE_SIZE)]
        assert len(set(slots)) == len(slots) == sum(table.num_tokens for table in tables)
        assert all(0 <= slot < CAPACITY for slot in slots)
        stats = pool.stats()
        assert stats.free_pages == NUM_PAGES - sum(len(table.pages) for table in tables)
        assert 0 <= stats.reserved_pages <= stats.free_pages
