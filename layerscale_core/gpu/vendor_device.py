"""Taking a vendor's device: what torch says of it, and kernels that are tuned for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from layerscale_core.allocator import CountingAllocator
from layerscale_core.errors import BackendError
from layerscale_core.gpu.device import TorchDevice
from layerscale_core.gpu.graphs import DecodeGraphs
from layerscale_core.gpu.triton_kernels import TritonKernels
from layerscale_core.gpu.vendor import Vendor
from layerscale_core.gpu.warm_up import warm_up
from layerscale_core.specs.backend import DeviceInfo

_RUNTIME_BYTES = 512 << 20
"""What the driver, compiled kernels and recorded graphs take beside all that is counted."""


def open_device(vendor: Vendor) -> TorchDevice:
    """Take the first device that this process may see.

    Raises:
        BackendError: torch cannot use it, or there are no kernels for it.
    """
    if not torch.cuda.is_available():
        raise BackendError(f"torch {torch.__version__} finds no {vendor.label} GPU that it can use")
    device = torch.device("cuda", 0)
    try:
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
        properties = torch.cuda.get_device_properties(device)
    except RuntimeError as error:
        raise BackendError(f"the {vendor.label} GPU does not answer: {' '.join(str(error).split())}") from error
    architecture = architecture_of(properties)
    tuning = vendor.tuning(architecture, properties.name)
    tuning = replace(tuning, target_programs=2 * properties.multi_processor_count)
    allocator = CountingAllocator(max(0, free_bytes - _RUNTIME_BYTES), str(properties.name))

    def inspect() -> DeviceInfo:
        free_now, _ = torch.cuda.mem_get_info(device)
        description = f"{properties.name} ({architecture}), Triton kernels"
        return DeviceInfo(f"{vendor.name}:0", description, total_bytes, free_now, is_accelerator=True)

    def make_kernels() -> TritonKernels:
        graphs = DecodeGraphs(device, vendor.graph_buckets, record) if vendor.graph_buckets else None
        return TritonKernels(device, allocator, tuning, graphs=graphs)

    first_steps = partial(warm_up, buckets=vendor.graph_buckets)
    return TorchDevice(inspect, allocator, make_kernels, first_steps=first_steps)


def architecture_of(properties: Any) -> str:
    """A device's architecture as compilers name it: ``sm_90``, ``gfx942``.

    Args:
        properties: what ``torch.cuda.get_device_properties`` says.
    """
    amd = str(getattr(properties, "gcnArchName", "")).partition(":")[0]
    return amd if amd.startswith("gfx") else f"sm_{properties.major}{properties.minor}"


def record(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record a CUDA or HIP graph.

    The step is computed once before, which compiles its kernels; it writes the same keys again when it is replayed.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may ask for free memory meanwhile
        output = compute()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay
