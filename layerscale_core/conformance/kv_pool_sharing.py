"""Sharing in a KV pool: forks, copies on write, and prefixes that are published, found and withdrawn."""

from __future__ import annotations

import pytest

from layerscale_core.conformance.kv_pool_under_test import (
    CAPACITY,
    NUM_PAGES,
    PAGE_SIZE,
    PROMPT,
    KVPoolUnderTest,
    slots_of,
)
from layerscale_core.specs import KVPool, MissReason, PageTable, PoolStats, PrefixMiss


def publish(pool: KVPool, num_tokens: int = len(PROMPT), namespace: str = "") -> PageTable:
    """A sequence that has computed and published the first tokens of ``PROMPT``."""
    table = pool.admit(len(PROMPT))
    pool.append(table, num_tokens)
    pool.publish(table, PROMPT[:num_tokens], namespace)
    return table


class SharingContract(KVPoolUnderTest):
    """Pages with several owners: nobody writes into another's slots, and nothing is found that should not be."""

    def test_a_fork_shares_every_page_and_takes_none(self, pool: KVPool) -> None:
        """``fork``: the same slots, and a promise for what is not shared, one copy of the open page included."""
        parent = pool.admit(PAGE_SIZE + 2)
        pool.append(parent, PAGE_SIZE + 1)
        fork = pool.fork(parent, 3 * PAGE_SIZE)
        assert slots_of(fork) == slots_of(parent)
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
        shared = slots_of(other)
        with pytest.raises(AssertionError):
            pool.append(writer, 1)
        copy = pool.make_writable(writer)
        assert copy is not None
        assert (copy.source_id, copy.target_id) == (other.pages[-1].page_id, writer.pages[-1].page_id)
        assert pool.make_writable(other) is None
        assert pool.append(writer, 1) != pool.append(other, 1)
        assert slots_of(other)[:-1] == shared
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

    @pytest.mark.parametrize("publisher_runs", [True, False])
    def test_a_published_prefix_is_reused_in_whole_pages(self, pool: KVPool, publisher_runs: bool) -> None:
        """``reuse_prefix``: the publisher's pages, which come off the promise, while it runs and after its release."""
        publisher = publish(pool)
        if not publisher_runs:
            pool.release(publisher)
        table = pool.admit(len(PROMPT))
        assert pool.stats().reserved_pages == 4
        assert pool.reuse_prefix(table, PROMPT, "") is None
        assert slots_of(table) == slots_of(publisher)[: 3 * PAGE_SIZE]
        assert table.num_tokens == 3 * PAGE_SIZE
        assert pool.stats().reserved_pages == 1
        assert not set(pool.append(table, 1)) & set(slots_of(publisher)[: 3 * PAGE_SIZE])
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
