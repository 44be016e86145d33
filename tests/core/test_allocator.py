"""Counting memory."""

from __future__ import annotations

import pytest

from layerscale_core.allocator import CountingAllocator
from layerscale_core.errors import OutOfMemoryError
from layerscale_core.specs import MemoryStats


def test_counts_by_label() -> None:
    allocator = CountingAllocator(100, "the box")
    allocator.reserve(60, "weights")
    allocator.reserve(40, "cache")
    assert allocator.stats() == MemoryStats(total_bytes=100, used_bytes=100)
    allocator.release(60, "weights")
    assert allocator.stats().free_bytes == 60


def test_one_byte_too_many_is_refused_with_the_numbers() -> None:
    allocator = CountingAllocator(2000, "the box")
    allocator.reserve(500, "weights")
    with pytest.raises(OutOfMemoryError) as refusal:
        allocator.reserve(1501, "cache")
    assert str(refusal.value) == "cache needs 1,501 bytes, but the box has 1,500 of 2,000 bytes free"
    allocator.reserve(1500, "cache")


def test_giving_back_more_than_was_taken_is_our_mistake() -> None:
    allocator = CountingAllocator(100, "the box")
    allocator.reserve(10, "weights")
    with pytest.raises(AssertionError, match="cache gives back more than it holds"):
        allocator.release(10, "cache")
