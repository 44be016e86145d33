"""The KV pool: promises are kept, pages are conserved, and mistakes are caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from layerscale_core.engine.kv_pool import PagedKVPool
from layerscale_core.engine.page_table import PagedTable
from layerscale_core.engine.pages import Pages
from layerscale_core.specs import KVPool, PageRange, PoolStats

PAGE = 4


def make_pool(num_pages: int = 6) -> PagedKVPool:
    return PagedKVPool(num_pages, PAGE)


def test_implements_the_spec() -> None:
    pool: KVPool = make_pool()
    assert pool.page_size == PAGE
    assert pool.stats() == PoolStats(total_pages=6, free_pages=6, reserved_pages=0)


@pytest.mark.parametrize(
    ("num_tokens", "num_pages"), [(1, 1), (PAGE, 1), (PAGE + 1, 2), (2 * PAGE, 2), (2 * PAGE + 1, 3)]
)
def test_promises_whole_pages(num_tokens: int, num_pages: int) -> None:
    pool = make_pool()
    pool.admit(num_tokens)
    assert pool.stats() == PoolStats(total_pages=6, free_pages=6, reserved_pages=num_pages)


def test_takes_a_page_only_when_its_first_slot_is_written() -> None:
    pool = make_pool()
    table = pool.admit(2 * PAGE + 1)
    taken = []
    for _ in range(2 * PAGE + 1):
        pool.append(table, 1)
        pool.check_integrity()
        taken.append(6 - pool.stats().free_pages)
    assert taken == [1] * PAGE + [2] * PAGE + [3]
    assert pool.stats().reserved_pages == 0


@pytest.mark.parametrize("chunks", [[9], [1] * 9, [4, 4, 1], [3, 5, 1], [8, 1], [5, 4]])
def test_slots_follow_the_pages_however_the_tokens_come(chunks: list[int]) -> None:
    pool = make_pool()
    table = pool.admit(9)
    slots = [slot for count in chunks for slot in pool.append(table, count)]
    in_pages = [page.page_id * PAGE + offset for page in table.pages for offset in range(page.start, page.stop)]
    assert slots == in_pages
    assert len(set(slots)) == table.num_tokens == 9
    assert [(page.start, page.stop) for page in table.pages] == [(0, 4), (0, 4), (0, 1)]


def test_appending_nothing_changes_nothing() -> None:
    pool = make_pool()
    table = pool.admit(PAGE)
    assert pool.append(table, 0) == []
    assert (table.pages, table.num_tokens) == ([], 0)
    pool.check_integrity()


def test_admits_up_to_the_last_page_and_not_beyond() -> None:
    pool = make_pool(num_pages=3)
    pool.admit(2 * PAGE)
    assert pool.can_admit(PAGE)
    assert not pool.can_admit(PAGE + 1)
    assert pool.fits_ever(3 * PAGE)
    assert not pool.fits_ever(3 * PAGE + 1)


def test_a_promise_is_kept_when_all_other_pages_are_taken() -> None:
    pool = make_pool(num_pages=3)
    patient, greedy = pool.admit(PAGE), pool.admit(2 * PAGE)
    pool.append(greedy, 2 * PAGE)
    assert pool.append(patient, PAGE)
    assert pool.stats().free_pages == 0


@pytest.mark.parametrize("num_written", [0, 1, PAGE, PAGE + 1, 3 * PAGE])
def test_release_gives_back_pages_and_what_was_only_promised(num_written: int) -> None:
    pool = make_pool(num_pages=3)
    table = pool.admit(3 * PAGE)
    pool.append(table, num_written)
    pool.release(table)
    pool.check_integrity()
    assert pool.stats() == PoolStats(total_pages=3, free_pages=3, reserved_pages=0)


def test_a_reused_page_starts_with_an_empty_range() -> None:
    pool = make_pool(num_pages=1)
    first = pool.admit(PAGE)
    pool.append(first, PAGE)
    pool.release(first)
    second = pool.admit(PAGE)
    pool.append(second, 1)
    assert second.pages == [PageRange(first.pages[0].page_id, 0, 1)]


def test_an_empty_pool_admits_nothing() -> None:
    pool = make_pool(num_pages=0)
    assert not pool.fits_ever(1)
    pool.check_integrity()


def release_twice(pool: PagedKVPool, table: PagedTable) -> None:
    pool.release(table)
    pool.release(table)


def use_after_release(pool: PagedKVPool, table: PagedTable) -> None:
    pool.release(table)
    pool.append(table, 1)


@pytest.mark.parametrize(
    "misuse",
    [
        release_twice,
        use_after_release,
        lambda pool, table: pool.append(table, PAGE + 1),
        lambda pool, table: pool.admit(6 * PAGE),
        lambda pool, table: make_pool().release(table),
    ],
)
def test_misuse_is_caught(misuse: Callable[[PagedKVPool, PagedTable], object]) -> None:
    pool = make_pool()
    with pytest.raises(AssertionError):
        misuse(pool, pool.admit(PAGE))


def lose_a_page(table: PagedTable, other: PagedTable) -> None:
    table.pages.pop()


def share_a_page_uncounted(table: PagedTable, other: PagedTable) -> None:
    table.pages[0] = other.pages[0]


def promise_too_much(table: PagedTable, other: PagedTable) -> None:
    table.num_promised += 1


def miscount_tokens(table: PagedTable, other: PagedTable) -> None:
    table.num_tokens += 1


def leave_a_gap(table: PagedTable, other: PagedTable) -> None:
    table.pages[0].stop -= 1
    table.pages[1].stop += 1


@pytest.mark.parametrize(
    "damage", [lose_a_page, share_a_page_uncounted, promise_too_much, miscount_tokens, leave_a_gap]
)
def test_the_integrity_check_sees_damage(damage: Callable[[PagedTable, PagedTable], None]) -> None:
    pool = make_pool()
    tables = [pool.admit(2 * PAGE), pool.admit(2 * PAGE)]
    for table in tables:
        pool.append(table, PAGE + 1)
    pool.check_integrity()
    damage(*tables)
    with pytest.raises(AssertionError):
        pool.check_integrity()


def unreferenced_but_busy(pages: Pages, page_id: int) -> None:
    pages._prefixes.mark_busy(page_id)


def cached_and_free(pages: Pages, page_id: int) -> None:
    pages._free.append(page_id)


def lost(pages: Pages, page_id: int) -> None:
    pages._prefixes.evict()


@pytest.mark.parametrize("damage", [unreferenced_but_busy, cached_and_free, lost])
def test_the_integrity_check_sees_damage_to_cached_pages(damage: Callable[[Pages, int], None]) -> None:
    pages = Pages(num_pages=6, page_size=PAGE)
    page_id = pages.take()
    pages.publish(range(PAGE), "", [page_id])
    assert not pages.release(page_id), "kept for its prefix"
    pages.check(owned=[])
    damage(pages, page_id)
    with pytest.raises(AssertionError):
        pages.check(owned=[])


def test_a_promise_for_a_copy_goes_with_whoever_shares() -> None:
    pool = make_pool()
    parent = pool.admit(PAGE)
    pool.append(parent, 1)
    forks = [pool.fork(parent, PAGE) for _ in range(3)]
    assert pool.stats().reserved_pages == 3
    for num_left, table in zip((2, 1, 0), [parent, *forks], strict=False):
        pool.release(table)
        assert pool.stats().reserved_pages == num_left
        pool.check_integrity()
    assert pool.make_writable(forks[-1]) is None


class PoolMachine(RuleBasedStateMachine):
    """Any order of calls; the model is a dictionary of what each table may still take."""

    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagedKVPool(num_pages=8, page_size=3)
        self.room: dict[PagedTable, int] = {}

    @rule(target=tables, max_tokens=st.integers(1, 24))
    def admit(self, max_tokens: int) -> PagedTable | None:
        promised = sum(-(-(table.num_tokens + room) // 3) for table, room in self.room.items())
        fits = promised + -(-max_tokens // 3) <= 8
        assert self.pool.can_admit(max_tokens) == fits
        if not fits:
            return None
        table = self.pool.admit(max_tokens)
        self.room[table] = max_tokens
        return table

    @precondition(lambda self: self.room)
    @rule(table=tables, num_tokens=st.integers(0, 24))
    def append(self, table: PagedTable | None, num_tokens: int) -> None:
        if table not in self.room:
            return
        num_tokens = min(num_tokens, self.room[table])
        taken = {
            page.page_id * 3 + offset for other in self.room for page in other.pages for offset in range(page.stop)
        }
        slots = self.pool.append(table, num_tokens)
        assert len(set(slots)) == num_tokens
        assert not taken & set(slots), "a slot of a living sequence was given away"
        self.room[table] -= num_tokens

    @rule(table=consumes(tables))
    def release(self, table: PagedTable | None) -> None:
        if table in self.room:
            del self.room[table]
            self.pool.release(table)

    @invariant()
    def books_balance(self) -> None:
        self.pool.check_integrity()


PoolMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_any_order_of_calls = PoolMachine.TestCase
