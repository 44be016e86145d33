"""A GPU made of an environment variable: its memory is a number, its processor is torch's CPU device."""

from __future__ import annotations

import importlib.util
import os
import re

from layerscale_core.allocator import CountingAllocator
from layerscale_core.errors import BackendError
from layerscale_core.specs import BackendOptions, Capabilities, Device, DeviceInfo, KVType, Probe

MEMORY_VARIABLE = "LAYERSCALE_SIMGPU_MEMORY"
"""How much memory the device has, e.g. ``2GiB`` or ``512 MiB``; without it there is no device."""

_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NOTICE = "the simulated GPU computes with torch on the CPU: it is for tests, not for speed"

_ROWS_PER_PRODUCT = 8
"""Of a matrix product on torch's CPU device: with a fixed number, no token's result depends on its neighbours."""


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

    def load(self, options: BackendOptions) -> Device:  # noqa: ARG002 (torch has its threads from OMP_NUM_THREADS)
        """Import what is heavy, and take the device."""
        import torch  # noqa: PLC0415

        from layerscale_core.gpu.device import TorchDevice  # noqa: PLC0415
        from layerscale_core.gpu.torch_kernels import TorchKernels  # noqa: PLC0415

        allocator = CountingAllocator(_memory_bytes(), "the simulated GPU")

        def inspect() -> DeviceInfo:
            memory = allocator.stats()
            return DeviceInfo("simgpu:0", "simulated GPU", memory.total_bytes, memory.free_bytes, is_accelerator=True)

        def make_kernels() -> TorchKernels:
            return TorchKernels(torch.device("cpu"), allocator, torch.float32, _ROWS_PER_PRODUCT)

        return TorchDevice(inspect, allocator, make_kernels, (_NOTICE,))


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
    if importlib.util.find_spec("torch") is None:
        raise BackendError("no simulated GPU: torch is not installed")
    return int(match[1]) * _UNITS[match[2]]
