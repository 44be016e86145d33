"""How fast this machine's memory can be copied: what decoding, which reads all weights for a step, is held against."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_BYTES_PER_THREAD = 64 << 20
"""More than any cache holds."""

_NUM_COPIES = 8


def measure_copy_bandwidth(num_threads: int) -> float:
    """Bytes read and written in a second by the best of several copies, each thread copying memory of its own."""
    buffers = [
        (np.ones(_BYTES_PER_THREAD, np.uint8), np.zeros(_BYTES_PER_THREAD, np.uint8)) for _ in range(num_threads)
    ]
    with ThreadPoolExecutor(num_threads) as pool:

        def copy_s() -> float:
            started = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), buffers))
            return time.perf_counter() - started

        return 2 * num_threads * _BYTES_PER_THREAD / min(copy_s() for _ in range(_NUM_COPIES))
