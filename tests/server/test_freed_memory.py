"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import sys

import psutil
import pytest

from layerscale_server.freed_memory import return_freed_memory

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)

NUM_BLOCKS = 64 * 1024


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def test_what_lies_below_memory_in_use_is_returned() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(1000) for _ in range(NUM_BLOCKS)]
    for block in blocks[:-1]:
        libc.free(block)
    before = resident_bytes()
    return_freed_memory()
    assert before - resident_bytes() > NUM_BLOCKS * 500
    libc.free(blocks[-1])
