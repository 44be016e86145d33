"""Threads of numpy's library for matrix products, which nobody here uses beside native kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_SPINNING = "OPENBLAS_THREAD_TIMEOUT"
"""OpenBLAS's variable, read when it is loaded: a thread without work spins for two to the power of this many cycles."""

_LEAST = "4"


@contextmanager
def idle_blas_threads_sleep() -> Iterator[None]:
    """While numpy is imported: its threads go to sleep at once instead of spinning, each for some 30 ms, one per core.

    Whoever set the variable keeps what was asked for; processes that this one starts do not inherit it.
    """
    if _SPINNING in os.environ:
        yield
        return
    os.environ[_SPINNING] = _LEAST
    try:
        yield
    finally:
        del os.environ[_SPINNING]
