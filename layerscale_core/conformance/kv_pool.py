"""The contract of a KV pool's bookkeeping."""

from __future__ import annotations

import random

import pytest

from layerscale_core.conformance.kv_pool_reservations import ReservationsContract
from layerscale_core.conformance.kv_pool_sharing import SharingContract
from layerscale_core.conformance.kv_pool_under_test import CAPACITY, NUM_PAGES, PAGE_SIZE, slots_of
from layerscale_core.specs import KVPool, PageTable, PoolStats, num_pages_for


class KVPoolContract(SharingContract, ReservationsContract):
    """Every promise of ``KVPool`` and ``PageTable``."""

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
        pool = self.make_session_pool(2)
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
        assert slots == slots_of(table)
        num_taken = num_pages_for(num_tokens, PAGE_SIZE)
        assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES - num_taken, NUM_PAGES - num_taken)
        pool.check_integrity()

    def test_appending_fills_a_page_before_it_takes_another(self, pool: KVPool) -> None:
        """A sequence that grows token by token takes as few pages as one that grows at once."""
        table = pool.admit(CAPACITY)
        slots = [slot for _ in range(PAGE_SIZE + 1) for slot in pool.append(table, 1)]
        assert slots == slots_of(table)
        assert len(table.pages) == 2

    def test_releasing_gives_back_pages_and_promise(self, pool: KVPool) -> None:
        """``release``: the pool is as before, whether or not the sequence grew to its limit."""
        for num_tokens in (0, 1, PAGE_SIZE + 1, CAPACITY):
            table = pool.admit(CAPACITY)
            pool.append(table, num_tokens)
            pool.release(table)
            assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES, 0)
            pool.check_integrity()

    @pytest.mark.parametrize("num_tokens", [0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE])
    def test_dropping_the_front_makes_old_slots_invalid(self, pool: KVPool, num_tokens: int) -> None:
        """``drop_front``: the other slots stay where they are, and emptied pages come back."""
        table = pool.admit(CAPACITY)
        slots = pool.append(table, 3 * PAGE_SIZE + 1)
        pool.drop_front(table, num_tokens)
        assert slots_of(table) == slots[num_tokens:]
        assert table.num_tokens == len(slots) - num_tokens
        assert pool.stats().free_pages == NUM_PAGES - 4 + num_tokens // PAGE_SIZE
        pool.check_integrity()

    def test_the_newest_token_cannot_be_dropped(self, pool: KVPool) -> None:
        """``drop_front``: at least one stays."""
        table = pool.admit(PAGE_SIZE)
        pool.append(table, 2)
        with pytest.raises(AssertionError):
            pool.drop_front(table, 2)

    @pytest.mark.parametrize("num_kept", [1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE])
    def test_what_an_admitted_table_gives_back_stays_promised_to_it(self, pool: KVPool, num_kept: int) -> None:
        """``truncate``: it can grow to where it was promised to, whoever is admitted meanwhile."""
        table = pool.admit(3 * PAGE_SIZE)
        slots = pool.append(table, 3 * PAGE_SIZE)
        pool.truncate(table, num_kept)
        assert slots_of(table) == slots[:num_kept]
        assert table.num_tokens == num_kept
        pool.check_integrity()
        assert not pool.can_admit(CAPACITY - 3 * PAGE_SIZE + 1)
        other = pool.admit(CAPACITY - 3 * PAGE_SIZE)
        pool.append(other, CAPACITY - 3 * PAGE_SIZE)
        assert len(pool.append(table, 3 * PAGE_SIZE - num_kept)) == 3 * PAGE_SIZE - num_kept
        pool.release(table)
        pool.release(other)
        assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES, 0)

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
        slots = [slot for table in tables for slot in slots_of(table)]
        assert len(set(slots)) == len(slots) == sum(table.num_tokens for table in tables)
        assert all(0 <= slot < CAPACITY for slot in slots)
        stats = pool.stats()
        assert stats.free_pages == NUM_PAGES - sum(len(table.pages) for table in tables)
        assert 0 <= stats.reserved_pages <= stats.free_pages
