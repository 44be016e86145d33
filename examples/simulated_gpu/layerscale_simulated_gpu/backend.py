"""A GPU made of an environment variable: its memory is a number, its kernels are numpy's."""

from __future__ import annotations

import os
import re

from layerscale_core.allocator import CountingAllocator
from layerscale_core.errors import BackendError
from layerscale_core.models import ModelSpec
from layerscale_core.reference import ReferenceKernels
from layerscale_core.specs import (
    Allocator,
    BackendOptions,
    Capabilities,
    DeviceInfo,
    Executor,
    Kernels,
    KVLayout,
    KVType,
    MemoryNeeds,
    Probe,
    StepLimits,
    WeightSource,
)

MEMORY_VARIABLE = "LAYERSCALE_SIMGPU_MEMORY"
"""How much memory the device has, e.g. ``2GiB`` or ``512 MiB``; without it there is no device."""

_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class SimulatedGpu:
    """``layerscale_core.specs.Backend``: present when its variable is set."""

    name = "simgpu"
    capabilities = Capabilities(page_sizes=(16, 32), kv_types=tuple(KVType))

    def probe(self) -> Probe:
        """A GPU outranks the CPU; an absent one or one with nonsense for its memory cannot serve. Never raises."""
        try:
            memory_bytes = _memory_bytes()
        except BackendError as error:
            return Probe(score=0, reason=str(error))
        return Probe(score=100, reason=f"a simulated GPU with {memory_bytes / 2**20:g} MiB")

    def load(self, options: BackendOptions) -> SimulatedGpuDevice:  # noqa: ARG002 (it has no host threads of its own)
        """Take the device."""
        return SimulatedGpuDevice(_memory_bytes())


class SimulatedGpuDevice:
    """``layerscale_core.specs.Device``: brings kernels, and leaves the executor to core."""

    notices = ("the simulated GPU computes with numpy: it is for tests, not for speed",)

    def __init__(self, memory_bytes: int) -> None:
        self._allocator = CountingAllocator(memory_bytes, "the simulated GPU")

    @property
    def infos(self) -> tuple[DeviceInfo, ...]:
        """The one device, with its memory now."""
        memory = self._allocator.stats()
        return (
            DeviceInfo(
                name="simgpu:0",
                description="simulated GPU",
                total_memory_bytes=memory.total_bytes,
                free_memory_bytes=memory.free_bytes,
                is_accelerator=True,
            ),
        )

    @property
    def allocator(self) -> Allocator:
        """The device's memory."""
        return self._allocator

    def memory_needs(self, spec: ModelSpec, weights: WeightSource, limits: StepLimits) -> MemoryNeeds:
        """What the kernels take."""
        return self.make_kernels().memory_needs(spec, weights, limits)

    def make_executor(self, spec: ModelSpec, weights: WeightSource, kv: KVLayout) -> Executor | None:  # noqa: ARG002
        """None: core's forward pass runs over ``make_kernels``."""
        return None

    def make_kernels(self) -> Kernels:
        """Kernels whose weights and cache are counted as the device's."""
        return ReferenceKernels(self._allocator)


def _memory_bytes() -> int:
    """The device's memory.

    Raises:
        BackendError: there is no device, or the variable is nonsense.
    """
    text = os.environ.get(MEMORY_VARIABLE)
    if text is None:
        raise BackendError(f"no simulated GPU: {MEMORY_VARIABLE} is not set")
    match = re.fullmatch(r"\s*(\d{1,6})\s*(KiB|MiB|GiB)\s*", text)
    if match is None:
        raise BackendError(f"{MEMORY_VARIABLE} must be a size such as 2GiB or 512MiB")
    return int(match[1]) * _UNITS[match[2]]
