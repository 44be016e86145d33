"""The radix tree of cached pages by itself."""

from __future__ import annotations

import pytest

from layerscale_core.engine.prefix_cache import PrefixCache
from layerscale_core.specs import MissReason

PAGE = 2


def cache_of(*prefixes: tuple[int, ...], num_pages: int = 100) -> PrefixCache:
    """A cache of idle prefixes; their pages are numbered in order of first appearance."""
    cache = PrefixCache(num_pages, PAGE)
    num_known = 0
    for prefix in prefixes:
        known, _ = cache.find((*prefix, 0), "")
        num_new = len(prefix) // PAGE - len(known)
        pages = [*known, *range(num_known, num_known + num_new)]
        num_known += num_new
        cache.publish(prefix, "", pages)
        for page_id in reversed(pages):
            cache.mark_busy(page_id)
            assert cache.mark_idle(page_id)
    cache.check_tree()
    return cache


def found(cache: PrefixCache, *token_ids: int) -> list[int]:
    return cache.find(token_ids, "")[0]


def test_prefixes_share_the_pages_of_their_common_beginning() -> None:
    cache = cache_of((1, 2, 3, 4), (1, 2, 5, 6))
    assert found(cache, 1, 2, 3, 4, 0) == [0, 1]
    assert found(cache, 1, 2, 5, 6, 0) == [0, 2]
    assert found(cache, 1, 2, 5, 6) == [0], "the last token is never reused"
    assert found(cache, 1, 9, 3, 4, 0) == []


def test_where_two_sequences_computed_the_same_the_first_page_stays() -> None:
    cache = cache_of((1, 2))
    cache.publish((1, 2, 3, 4), "", [7, 8])
    assert found(cache, 1, 2, 3, 4, 0) == [0]
    assert not cache.mark_idle(7)
    assert not cache.mark_idle(8)


def test_evicts_least_recently_used_continuations_before_their_beginnings() -> None:
    cache = cache_of((1, 2, 3, 4), (5, 6), (1, 2, 7, 8))
    assert [cache.evict() for _ in range(4)] == [[1], [2], [3], [0]]
    assert cache.num_idle == 0
    cache.check_tree()


def test_what_continues_an_evicted_page_goes_with_it() -> None:
    cache = PrefixCache(100, PAGE)
    cache.publish((1, 2, 3, 4, 5, 6), "", [0, 1, 2])
    cache.mark_idle(0)
    cache.mark_idle(2)  # page 1 is still referred to by a sequence that dropped its beginning
    assert sorted(cache.evict()) == [0, 2]
    assert not cache.mark_idle(1)
    cache.check_tree()


def test_evicted_pages_are_remembered_up_to_a_bound() -> None:
    cache = cache_of((1, 1), (2, 2), (3, 3), num_pages=2)
    for _ in range(3):
        cache.evict()
    reasons = [miss.reason for token in (1, 2, 3) if (miss := cache.find((token, token, 0), "")[1])]
    assert reasons == [MissReason.NEVER_SEEN, MissReason.EVICTED, MissReason.EVICTED]


def test_what_is_cached_again_counts_as_evicted_no_more() -> None:
    cache = cache_of((1, 1))
    cache.evict()
    cache.publish((1, 1), "", [5])
    assert cache.find((1, 1, 0), "") == ([5], None)
    cache.withdraw(5)
    _, miss = cache.find((1, 1, 0), "")
    assert miss is not None
    assert miss.reason is MissReason.NEVER_SEEN


def test_a_page_cannot_stand_under_two_prefixes() -> None:
    cache = cache_of((1, 1))
    with pytest.raises(AssertionError):
        cache.publish((2, 2), "", [0])
