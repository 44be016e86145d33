"""An allocator that keeps count, for backends that take their memory from elsewhere."""

from __future__ import annotations

from collections import Counter

from layerscale_core.errors import OutOfMemoryError
from layerscale_core.specs.memory import MemoryStats


class CountingAllocator:
    """Counts what is held of a fixed amount of memory, by label; the memory itself is its users' to take and to drop.

    Args:
        total_bytes: what there is.
        where: names the memory in errors, e.g. ``host memory``.
    """

    def __init__(self, total_bytes: int, where: str) -> None:
        self._total_bytes = total_bytes
        self._where = where
        self._used_bytes: Counter[str] = Counter()

    def reserve(self, num_bytes: int, label: str) -> None:
        """Count ``num_bytes`` as used by ``label``.

        Raises:
            OutOfMemoryError: it does not fit; nothing is reserved then.
        """
        assert num_bytes >= 0, "a reservation has a size"
        free_bytes = self.stats().free_bytes
        if num_bytes > free_bytes:
            raise OutOfMemoryError(
                f"{label} needs {num_bytes:,} bytes, but {self._where} has {free_bytes:,} "
                f"of {self._total_bytes:,} bytes free"
            )
        self._used_bytes[label] += num_bytes

    def release(self, num_bytes: int, label: str) -> None:
        """Give back what was reserved under ``label``."""
        assert 0 <= num_bytes <= self._used_bytes[label], f"{label} gives back more than it holds"
        self._used_bytes[label] -= num_bytes

    def stats(self) -> MemoryStats:
        """The counts now."""
        return MemoryStats(total_bytes=self._total_bytes, used_bytes=self._used_bytes.total())
