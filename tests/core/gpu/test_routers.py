"""Routers on devices that compute in half precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("triton", reason="Triton is made for Linux on x86-64")

import torch

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import KernelsContract, RandomWeights, tiny_spec
from layerscale_core.conformance.executors import kv_layout
from layerscale_core.conformance.side_by_side import SideBySide
from layerscale_core.forward import KernelExecutor
from layerscale_core.gpu.device_kernels import DeviceKernels
from layerscale_core.gpu.torch_kernels import TorchKernels
from layerscale_core.gpu.triton_kernels import TritonKernels
from layerscale_core.gpu.tuning import PORTABLE
from layerscale_core.models.spec import ROUTER, layer_weight
from layerscale_core.specs import Allocator, StepLimits

CPU = torch.device("cpu")
MAKERS: dict[str, Callable[[Allocator], DeviceKernels]] = {
    "triton": lambda allocator: TritonKernels(CPU, allocator, PORTABLE, torch.bfloat16),
    "torch": lambda allocator: TorchKernels(CPU, allocator, torch.bfloat16),
}


@pytest.mark.parametrize("layout", ["bf16", "4-bit, groups of 32"])
@pytest.mark.parametrize("kernels", MAKERS)
def test_a_router_takes_four_bytes_a_weight_and_is_counted_so(kernels: str, layout: str) -> None:
    spec = tiny_spec(num_experts=5)
    allocator = CountingAllocator(2**30, "the test's memory")
    kv, weights = kv_layout(spec, 16), RandomWeights(spec, layout)
    loaded = MAKERS[kernels](allocator)
    needs = loaded.memory_needs(spec, weights, StepLimits(max_tokens=32, max_logits=4, max_context_len=256))
    assert needs.weights[layer_weight(1, ROUTER)] == 5 * spec.hidden_size * 4
    KernelExecutor(loaded, spec, weights, kv)
    assert allocator.stats().used_bytes == needs.weights_bytes + kv.total_bytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_torch_tells_experts_apart_that_score_nearly_alike(dtype: torch.dtype) -> None:
    kernels = TorchKernels(CPU, CountingAllocator(2**30, "the test's memory"), dtype)
    KernelsContract().test_experts_that_score_nearly_alike_are_told_apart(SideBySide(kernels, 0.02))
