"""How much memory something keeps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def kept_by(make: Callable[[], T]) -> tuple[T, int]:
    """What ``make`` makes, and the bytes that Python holds of it."""
    tracemalloc.start()
    try:
        made = make()
        return made, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
