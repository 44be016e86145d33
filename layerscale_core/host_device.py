"""What devices share whose memory is the host's: their description, and an allocator over it."""

from __future__ import annotations

from layerscale_core.allocator import CountingAllocator
from layerscale_core.host import Host
from layerscale_core.specs.backend import DeviceInfo
from layerscale_core.specs.memory import Allocator


class HostDevice:
    """The part of ``layerscale_core.specs.Device`` that follows from the host. To inherit from.

    Args:
        host: as it is at ``load``.
        is_accelerator: whether something other than the processor computes.
    """

    def __init__(self, host: Host, *, name: str, description: str, is_accelerator: bool = False) -> None:
        self._allocator = CountingAllocator(host.total_memory_bytes, "host memory")
        self._info = DeviceInfo(
            name=name,
            description=description,
            total_memory_bytes=host.total_memory_bytes,
            free_memory_bytes=host.available_memory_bytes,
            is_accelerator=is_accelerator,
        )

    @property
    def infos(self) -> tuple[DeviceInfo, ...]:
        """The one device; memory as it was at ``load``."""
        return (self._info,)

    @property
    def allocator(self) -> Allocator:
        """Host memory."""
        return self._allocator
