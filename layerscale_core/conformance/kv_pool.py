"""The contract of a KV pool's bookkeeping."""

from __future__ import annotations

import random

import pytest

from layerscale_core.specs import KVLayout, KVPool, MissReason, PageTable, PoolStats, PrefixMiss

PAGE_SIZE = 4
NUM_PAGES = 12
CAPACITY = PAGE_SIZE * NUM_PAGES
PROMPT = tuple(range(100, 100 + 3 * PAGE_SIZE + 1))
"""Three whole pages and the token that is always computed."""


def slots_of(table: PageTable, page_size: int) -> list[int]:
    """A table's valid slots in order."""
    return [page.page_id * page_size + offset for page in table.pages for offset in range(page.start, page.stop)]


def publish(pool: KVPool, num_tokens: int = len(PROMPT), namespace: str = "") -> PageTable:
    """A sequence that has computed and published the first tokens of ``PROMPT``."""
    table = pool.admit(len(PROMPT))
    pool.append(table, num_tokens)
    pool.publish(table, PROMPT[:num_tokens], namespace)
    return table


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

    def test_a_fork_shares_every_page_and_takes_none(self, pool: KVPool) -> None:
        """``fork``: the same slots, and a promise for what is not shared, one copy of the open page included."""
        parent = pool.admit(PAGE_SIZE + 2)
        pool.append(parent, PAGE_SIZE + 1)
        fork = pool.fork(parent, 3 * PAGE_SIZE)
        assert slots_of(fork, PAGE_SIZE) == slots_of(parent, PAGE_SIZE)
        assert fork.num_tokens == parent.num_tokens
        assert pool.stats() == PoolStats(NUM_PAGES, free_pages=NUM_PAGES - 2, reserved_pages=2)
        pool.check_integrity()

    @pytest.mark.parametrize("first", ["parent", "fork"])
    def test_whoever_writes_first_into_a_shared_page_gets_a_copy(self, pool: KVPool, first: str) -> None:
        """``make_writable``: the other sharer's slots stay, and the last one needs no copy."""
        parent = pool.admit(2 * PAGE_SIZE)
        pool.append(parent, PAGE_SIZE + 1)
        fork = pool.fork(parent, 2 * PAGE_SIZE)
        writer, other = (parent, fork) if first == "parent" else (fork, parent)
        shared = slots_of(other, PAGE_SIZE)
        with pytest.raises(AssertionError):
            pool.append(writer, 1)
        copy = pool.make_writable(writer)
        assert copy is not None
        assert (copy.source_id, copy.target_id) == (other.pages[-1].page_id, writer.pages[-1].page_id)
        assert pool.make_writable(other) is None
        assert pool.append(writer, 1) != pool.append(other, 1)
        assert slots_of(other, PAGE_SIZE)[:-1] == shared
        pool.check_integrity()

    def test_a_whole_last_page_needs_no_copy(self, pool: KVPool) -> None:
        """``make_writable``: the next token goes into a page of its own anyway."""
        parent = pool.admit(2 * PAGE_SIZE)
        pool.append(parent, PAGE_SIZE)
        fork = pool.fork(parent, 2 * PAGE_SIZE)
        assert pool.make_writable(parent) is pool.make_writable(fork) is None
        assert not set(pool.append(parent, 1)) & set(pool.append(fork, 1))
        pool.check_integrity()

    def test_a_fork_that_could_run_out_is_refused(self, pool: KVPool) -> None:
        """``can_fork`` counts the copy that sharing may cost, whoever needs it."""
        parent = pool.admit(CAPACITY - PAGE_SIZE)
        pool.append(parent, 1)
        assert pool.can_fork(parent, PAGE_SIZE)
        assert not pool.can_fork(parent, PAGE_SIZE + 1)
        with pytest.raises(AssertionError):
            pool.fork(parent, PAGE_SIZE + 1)

    def test_shared_pages_outlive_their_first_owner(self, pool: KVPool) -> None:
        """``release``: a page is free when nobody refers to it."""
        parent = pool.admit(PAGE_SIZE)
        pool.append(parent, 2)
        fork = pool.fork(parent, PAGE_SIZE)
        pool.release(parent)
        assert pool.make_writable(fork) is None
        assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES - 1, 0)
        pool.release(fork)
        assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES, 0)

    @pytest.mark.parametrize("num_tokens", [0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE])
    def test_dropping_the_front_makes_old_slots_invalid(self, pool: KVPool, num_tokens: int) -> None:
        """``drop_front``: the other slots stay where they are, and emptied pages come back."""
        table = pool.admit(CAPACITY)
        slots = pool.append(table, 3 * PAGE_SIZE + 1)
        pool.drop_front(table, num_tokens)
        assert slots_of(table, PAGE_SIZE) == slots[num_tokens:]
        assert table.num_tokens == len(slots) - num_tokens
        assert pool.stats().free_pages == NUM_PAGES - 4 + num_tokens // PAGE_SIZE
        pool.check_integrity()

    def test_the_newest_token_cannot_be_dropped(self, pool: KVPool) -> None:
        """``drop_front``: at least one stays."""
        table = pool.admit(PAGE_SIZE)
        pool.append(table, 2)
        with pytest.raises(AssertionError):
            pool.drop_front(table, 2)

    @pytest.mark.parametrize("publisher_runs", [True, False])
    def test_a_published_prefix_is_reused_in_whole_pages(self, pool: KVPool, publisher_runs: bool) -> None:
        """``reuse_prefix``: the publisher's pages, which come off the promise, while it runs and after its release."""
        publisher = publish(pool)
        if not publisher_runs:
            pool.release(publisher)
        table = pool.admit(len(PROMPT))
        assert pool.stats().reserved_pages == 4
        assert pool.reuse_prefix(table, PROMPT, "") is None
        assert slots_of(table, PAGE_SIZE) == slots_of(publisher, PAGE_SIZE)[: 3 * PAGE_SIZE]
        assert table.num_tokens == 3 * PAGE_SIZE
        assert pool.stats().reserved_pages == 1
        assert not set(pool.append(table, 1)) & set(slots_of(publisher, PAGE_SIZE)[: 3 * PAGE_SIZE])
        pool.check_integrity()
        pool.release(table)
        if publisher_runs:
            pool.release(publisher)
        assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES - 3, 0, cached_pages=3)

    @pytest.mark.parametrize(
        ("prompt", "num_found", "miss"),
        [
            (PROMPT[:PAGE_SIZE], 0, PrefixMiss(0, MissReason.TOO_SHORT)),
            (PROMPT[: PAGE_SIZE + 1], PAGE_SIZE, None),
            (PROMPT[:-1], 2 * PAGE_SIZE, None),
            (PROMPT[:6] + (0,) * 9, PAGE_SIZE, PrefixMiss(6, MissReason.DIVERGED)),
            ((0,) * 9, 0, PrefixMiss(0, MissReason.NEVER_SEEN)),
            (PROMPT + (0,) * 9, 3 * PAGE_SIZE, PrefixMiss(3 * PAGE_SIZE, MissReason.NEVER_SEEN)),
        ],
    )
    def test_a_miss_says_where_and_why(
        self, pool: KVPool, prompt: tuple[int, ...], num_found: int, miss: PrefixMiss | None
    ) -> None:
        """``reuse_prefix``: never the last token, and the first token that was not found."""
        pool.release(publish(pool))
        table = pool.admit(len(prompt))
        assert pool.reuse_prefix(table, prompt, "") == miss
        assert table.num_tokens == num_found

    def test_namespaces_are_apart(self, pool: KVPool) -> None:
        """``reuse_prefix``: what was published for one is not found for another."""
        pool.release(publish(pool, namespace="one"))
        table = pool.admit(len(PROMPT))
        assert pool.reuse_prefix(table, PROMPT, "other") == PrefixMiss(0, MissReason.OTHER_NAMESPACE)
        assert table.num_tokens == 0

    def test_what_was_withdrawn_is_not_found(self, pool: KVPool) -> None:
        """``withdraw``: of the pages that this sequence computed, none; of those it reused, all."""
        pool.release(publish(pool, 2 * PAGE_SIZE))
        table = pool.admit(len(PROMPT))
        pool.reuse_prefix(table, PROMPT, "")
        pool.append(table, PAGE_SIZE + 1)
        pool.publish(table, PROMPT, "")
        pool.withdraw(table)
        pool.check_integrity()
        pool.release(table)
        after = pool.admit(len(PROMPT))
        pool.reuse_prefix(after, PROMPT, "")
        assert after.num_tokens == 2 * PAGE_SIZE
        pool.check_integrity()

    def test_a_page_that_a_fork_went_on_writing_is_withdrawn_with_it(self, pool: KVPool) -> None:
        """``withdraw``: the page counts as this sequence's, although another one began it."""
        parent = pool.admit(PAGE_SIZE)
        pool.append(parent, 1)
        fork = pool.fork(parent, len(PROMPT))
        pool.release(parent)
        assert pool.make_writable(fork) is None
        pool.append(fork, len(PROMPT) - 1)
        pool.publish(fork, PROMPT, "")
        pool.withdraw(fork)
        pool.release(fork)
        assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES, 0)

    def test_cached_pages_never_stand_in_the_way(self, pool: KVPool) -> None:
        """``can_admit`` and ``append``: what nobody refers to is evicted, and a miss says so."""
        pool.release(publish(pool))
        assert pool.can_admit(CAPACITY)
        table = pool.admit(CAPACITY)
        assert len(set(pool.append(table, CAPACITY))) == CAPACITY
        pool.check_integrity()
        pool.release(table)
        again = pool.admit(len(PROMPT))
        assert pool.reuse_prefix(again, PROMPT, "") == PrefixMiss(0, MissReason.EVICTED)

    def test_a_sequence_without_its_beginning_publishes_nothing(self, pool: KVPool) -> None:
        """``publish`` after ``drop_front``."""
        table = pool.admit(len(PROMPT))
        pool.append(table, len(PROMPT))
        pool.drop_front(table, 1)
        pool.publish(table, PROMPT, "")
        pool.release(table)
        assert pool.stats().cached_pages == 0

    def make_session_pool(self, num_session_pages: int) -> KVPool:
        """A pool that keeps pages for sessions."""
        layout = KVLayout(
            NUM_PAGES, PAGE_SIZE, num_layers=1, num_kv_heads=1, head_dim=8, num_session_pages=num_session_pages
        )
        return self.make_pool(layout)

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
        assert slots == slots_of(table, PAGE_SIZE)
        assert reservation.num_left == 0
        with pytest.raises(AssertionError):
            pool.append(table, 1)

    def test_what_a_reserved_table_gives_back_stays_the_sessions(self) -> None:
        """``truncate`` and ``release``: to the reservation, never to stateless requests."""
        pool = self.make_session_pool(4)
        table = pool.admit_reserved(reservation := pool.reserve(4))
        slots = pool.append(table, 3 * PAGE_SIZE + 1)
        pool.truncate(table, PAGE_SIZE + 1)
        assert slots_of(table, PAGE_SIZE) == slots[: PAGE_SIZE + 1]
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

    @pytest.mark.parametrize("num_kept", [1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE])
    def test_what_an_admitted_table_gives_back_stays_promised_to_it(self, pool: KVPool, num_kept: int) -> None:
        """``truncate``: it can grow to where it was promised to, whoever is admitted meanwhile."""
        table = pool.admit(3 * PAGE_SIZE)
        slots = pool.append(table, 3 * PAGE_SIZE)
        pool.truncate(table, num_kept)
        assert slots_of(table, PAGE_SIZE) == slots[:num_kept]
        assert table.num_tokens == num_kept
        pool.check_integrity()
        assert not pool.can_admit(CAPACITY - 3 * PAGE_SIZE + 1)
        other = pool.admit(CAPACITY - 3 * PAGE_SIZE)
        pool.append(other, CAPACITY - 3 * PAGE_SIZE)
        assert len(pool.append(table, 3 * PAGE_SIZE - num_kept)) == 3 * PAGE_SIZE - num_kept
        pool.release(table)
        pool.release(other)
        assert pool.stats() == PoolStats(NUM_PAGES, NUM_PAGES, 0)

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

    def test_what_others_share_or_may_reuse_is_not_taken_back(self, pool: KVPool) -> None:
        """``truncate`` of an admitted table: our own mistake, since somebody reads those slots."""
        published = publish(pool)
        with pytest.raises(AssertionError):
            pool.truncate(published, PAGE_SIZE + 1)
        parent = pool.admit(PAGE_SIZE)
        pool.append(parent, 2)
        fork = pool.fork(parent, PAGE_SIZE)
        with pytest.raises(AssertionError):
            pool.truncate(fork, 1)

    @pytest.mark.parametrize("num_tokens", [0, 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE + 2])
    def test_a_fork_may_share_only_the_first_tokens(self, num_tokens: int) -> None:
        """``fork`` with ``num_tokens``: the other tokens stay the parent's, and neither writes into the other's."""
        pool = self.make_session_pool(NUM_PAGES)
        table = pool.admit_reserved(reservation := pool.reserve(NUM_PAGES))
        slots = pool.append(table, 2 * PAGE_SIZE + 2)
        num_left = reservation.num_left
        fork = pool.fork(table, num_tokens + PAGE_SIZE, num_tokens=num_tokens)
        assert slots_of(fork, PAGE_SIZE) == slots[:num_tokens]
        assert 1 <= num_left - reservation.num_left <= 2, "the growth, and a copy of the page that is shared"
        pool.make_writable(fork)
        new = pool.append(fork, PAGE_SIZE)
        assert not set(new) & set(slots)
        pool.check_integrity()
        pool.release(fork)
        assert reservation.num_left == num_left
        assert slots_of(table, PAGE_SIZE) == slots
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
        assert slots_of(table, PAGE_SIZE) == before + after[num_dropped:]
        with pytest.raises(AssertionError):
            pool.drop_front(table, 2 * PAGE_SIZE - num_dropped + 1)
        pool.check_integrity()
        assert pool.make_writable(table) is None
        later = pool.append(table, 1)
        assert slots_of(table, PAGE_SIZE) == before + after[num_dropped:] + later
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
