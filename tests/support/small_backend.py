"""A backend of a known amount of memory, computing with the reference kernels."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.allocator import CountingAllocator
from layerscale_core.models import ModelSpec
from layerscale_core.reference import ReferenceKernels, reference_memory_needs
from layerscale_core.specs import (
    Backend,
    BackendOptions,
    Capabilities,
    DeviceInfo,
    MemoryNeeds,
    Probe,
    StepLimits,
    hookimpl,
)


class SmallDevice:
    """Computes with the reference kernels, in as much memory as a test gives it."""

    notices = ("this device is only a test",)

    def __init__(self, free_bytes: int) -> None:
        self.allocator = CountingAllocator(1 << 30, "the test's memory")
        self.infos = (DeviceInfo("small", "a small device", 1 << 30, free_bytes, is_accelerator=True),)

    def memory_needs(self, spec: ModelSpec, _weights: object, limits: StepLimits) -> MemoryNeeds:
        return reference_memory_needs(spec, limits)

    def make_executor(self, *_: object) -> None:
        return None

    def make_kernels(self) -> ReferenceKernels:
        return ReferenceKernels(self.allocator)


class SmallBackend:
    """A plugin and the backend it brings."""

    LAYERSCALE_SPEC_VERSION = 1
    name = "small"
    capabilities = Capabilities(page_sizes=(32, 16), max_tokens_per_step=100)

    def __init__(self, free_bytes: int) -> None:
        self.device = SmallDevice(free_bytes)
        self.options: list[BackendOptions] = []

    def probe(self) -> Probe:
        return Probe(1000, "always")

    def load(self, options: BackendOptions) -> SmallDevice:
        self.options.append(options)
        return self.device

    @hookimpl
    def layerscale_backends(self) -> Sequence[Backend]:
        return (self,)  # type: ignore[return-value]  # its device has no executor of its own
