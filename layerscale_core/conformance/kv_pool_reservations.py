"""Sessions' pages in a KV pool: reserved, taken, given back, and set apart."""

from __future__ import annotations

import pytest

from layerscale_core.conformance.kv_pool_under_test import NUM_PAGES, PAGE_SIZE, KVPoolUnderTest, slots_of
from layerscale_core.specs import PoolStats


class ReservationsContract(KVPoolUnderTest):
    """What a session has reserved is its own, whoever else runs, and its table keeps what was set apart."""

    def test_sessions_reserve_their_share_and_no_more(self) -> None:
        """``can_reserve``, ``reserve``, ``release_reservation``: pages are set aside, none is taken."""
        pool = self.make_session_pool(5)
        first, second = pool.reserve(3), pool.reserve(2)
        assert (first.num_left, second.num_left) == (3, 2)
        assert not pool.can_reserve(1)
        with pytest.raises(AssertionError):
            pool.reserve(1)
        pool.release_reservation(second)
        assert pool.can_reserve(2)
        assert not pool.can_reserve(3)
        assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES, 0)
        pool.check_integrity()

    def test_a_reserved_table_takes_its_reservations_pages_and_no_other(self) -> None:
        """``admit_reserved`` and ``append``: up to the last page, whatever stateless requests hold."""
        pool = self.make_session_pool(3)
        table = pool.admit_reserved(reservation := pool.reserve(3))
        stateless = pool.admit((NUM_PAGES - 3) * PAGE_SIZE)
        pool.append(stateless, (NUM_PAGES - 3) * PAGE_SIZE)
        slots = pool.append(table, 3 * PAGE_SIZE)
        assert slots == slots_of(table)
        assert reservation.num_left == 0
        with pytest.raises(AssertionError):
            pool.append(table, 1)

    def test_what_a_reserved_table_gives_back_stays_the_sessions(self) -> None:
        """``truncate`` and ``release``: to the reservation, never to stateless requests."""
        pool = self.make_session_pool(4)
        table = pool.admit_reserved(reservation := pool.reserve(4))
        slots = pool.append(table, 3 * PAGE_SIZE + 1)
        pool.truncate(table, PAGE_SIZE + 1)
        assert slots_of(table) == slots[: PAGE_SIZE + 1]
        assert reservation.num_left == 2
        assert not pool.can_admit((NUM_PAGES - 4) * PAGE_SIZE + 1)
        assert pool.append(table, 1) == slots[PAGE_SIZE + 1 : PAGE_SIZE + 2]
        pool.truncate(table, 0)
        assert table.pages == []
        pool.check_integrity()
        pool.release(table)
        assert reservation.num_left == 4
        pool.release_reservation(reservation)
        assert pool.can_reserve(4)

    def test_what_a_reserved_fork_gives_back_stays_promised_to_it(self) -> None:
        """``truncate``: the table it was forked from does not get it."""
        pool = self.make_session_pool(5)
        table = pool.admit_reserved(reservation := pool.reserve(5))
        pool.append(table, PAGE_SIZE)
        fork = pool.fork(table, 4 * PAGE_SIZE)
        assert reservation.num_left == 1
        pool.append(fork, 3 * PAGE_SIZE)
        pool.truncate(fork, PAGE_SIZE + 1)
        pool.check_integrity()
        assert reservation.num_left == 1
        pool.append(table, PAGE_SIZE)
        assert len(pool.append(fork, 3 * PAGE_SIZE - 1)) == 3 * PAGE_SIZE - 1
        pool.check_integrity()

    @pytest.mark.parametrize("num_tokens", [0, 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE + 2])
    def test_a_fork_may_share_only_the_first_tokens(self, num_tokens: int) -> None:
        """``fork`` with ``num_tokens``: the other tokens stay the parent's, and neither writes into the other's."""
        pool = self.make_session_pool(NUM_PAGES)
        table = pool.admit_reserved(reservation := pool.reserve(NUM_PAGES))
        slots = pool.append(table, 2 * PAGE_SIZE + 2)
        num_left = reservation.num_left
        fork = pool.fork(table, num_tokens + PAGE_SIZE, num_tokens=num_tokens)
        assert slots_of(fork) == slots[:num_tokens]
        assert 1 <= num_left - reservation.num_left <= 2, "the growth, and a copy of the page that is shared"
        pool.make_writable(fork)
        new = pool.append(fork, PAGE_SIZE)
        assert not set(new) & set(slots)
        pool.check_integrity()
        pool.release(fork)
        assert reservation.num_left == num_left
        assert slots_of(table) == slots
        pool.check_integrity()

    def test_a_reservation_refuses_forks_it_cannot_feed(self) -> None:
        """``can_fork`` of a reserved table counts what its reservation has left."""
        pool = self.make_session_pool(4)
        table = pool.admit_reserved(pool.reserve(3))
        pool.append(table, PAGE_SIZE + 1)
        assert not pool.can_fork(table, 3 * PAGE_SIZE)
        assert pool.can_fork(table, 2 * PAGE_SIZE)
        pool.fork(table, 2 * PAGE_SIZE)
        assert not pool.can_fork(table, 2 * PAGE_SIZE)

    @pytest.mark.parametrize("num_before", [0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1])
    @pytest.mark.parametrize("num_dropped", [0, 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE])
    def test_what_is_set_apart_stays_when_the_oldest_after_it_go(self, num_before: int, num_dropped: int) -> None:
        """``begin_page`` and ``drop_front``: all that came after may go, nothing that was before."""
        pool = self.make_session_pool(NUM_PAGES)
        table = pool.admit_reserved(pool.reserve(NUM_PAGES))
        before = pool.append(table, num_before)
        pool.begin_page(table)
        after = pool.append(table, 2 * PAGE_SIZE)
        assert not after[0] % PAGE_SIZE, "a page of its own"
        pool.drop_front(table, num_dropped)
        assert slots_of(table) == before + after[num_dropped:]
        with pytest.raises(AssertionError):
            pool.drop_front(table, 2 * PAGE_SIZE - num_dropped + 1)
        pool.check_integrity()
        assert pool.make_writable(table) is None
        later = pool.append(table, 1)
        assert slots_of(table) == before + after[num_dropped:] + later
        assert not set(later) & set(before)
        pool.check_integrity()

    def test_cutting_into_what_is_set_apart_joins_it_again(self) -> None:
        """``truncate`` before the page that was begun: the next token goes into the page that has room."""
        pool = self.make_session_pool(NUM_PAGES)
        table = pool.admit_reserved(pool.reserve(NUM_PAGES))
        before = pool.append(table, 3)
        pool.begin_page(table)
        pool.append(table, 3)
        pool.truncate(table, 3)
        assert pool.append(table, 1)[0] % PAGE_SIZE == 0, "what was set apart stays so"
        pool.truncate(table, 2)
        assert pool.append(table, 1) == before[2:]
        pool.check_integrity()
