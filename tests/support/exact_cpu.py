"""The CPU backend with activations of 16 bits, for tests of something else than what 8 bits lose."""

from __future__ import annotations

from layerscale_backend_cpu.backend import CpuBackend, CpuDevice
from layerscale_core.specs import ActivationType, BackendOptions


def exact_cpu(num_threads: int | None = None) -> CpuDevice:
    return CpuBackend().load(BackendOptions(num_threads, ActivationType.INT16))
