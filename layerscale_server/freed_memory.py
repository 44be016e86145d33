"""Memory that was freed, back to the system."""

from __future__ import annotations

import ctypes
import sys


def return_freed_memory() -> None:
    """Hand free pages back to the system, where the C library keeps them: glibc does, with every thread's own heap.

    Takes some 10 ms, in which other threads may wait for memory; for the ends of what builds much and keeps little.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
