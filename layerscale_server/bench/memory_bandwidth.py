"""How fast this machine's memory can be copied and read: what decoding, which reads all weights, is held against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_BYTES_PER_THREAD = 64 << 20
"""More than any cache holds."""

_NUM_RUNS = 8

_Words = NDArray[np.uint64]
_Part = TypeVar("_Part")


def measure_copy_bandwidth(num_threads: int) -> float:
    """Bytes read and written in a second by the best of several copies, each thread copying memory of its own."""
    pairs = [(_words(), np.zeros_like(_words())) for _ in range(num_threads)]
    return 2 * num_threads * _BYTES_PER_THREAD / _best_s(lambda pair: np.copyto(pair[1], pair[0]), pairs)


def measure_read_bandwidth(num_threads: int) -> float:
    """Bytes read in a second by the best of several passes, each thread reading memory of its own."""
    buffers = [_words() for _ in range(num_threads)]
    return num_threads * _BYTES_PER_THREAD / _best_s(np.bitwise_or.reduce, buffers)


def _words() -> _Words:
    return np.ones(_BYTES_PER_THREAD // 8, np.uint64)


def _best_s(work: Callable[[_Part], object], parts: Sequence[_Part]) -> float:
    """Seconds that the fastest of several runs took, each part on a thread of its own."""
    with ThreadPoolExecutor(len(parts)) as pool:

        def run_s() -> float:
            started = time.perf_counter()
            list(pool.map(work, parts))
            return time.perf_counter() - started

        return min(run_s() for _ in range(_NUM_RUNS))
