"""Every family natively: it takes the memory that was planned, and computes what the reference computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerscale_backend_cpu.backend import CpuBackend
from layerscale_backend_cpu.native_executor import NativeExecutor, native_isa
from layerscale_core.conformance.executors import (
    kv_layout,
    logits_in_chunks,
    random_tokens,
    reference_kernels,
    relative_error,
)
from layerscale_core.formats import GgufFormat, open_model
from layerscale_core.forward import KernelExecutor
from layerscale_core.specs import BackendOptions, KVType, StepLimits
from tests.support.tiny_families import FAMILIES, write_tiny_family

pytestmark = pytest.mark.skipif(native_isa() is None, reason="the native kernels are not compiled")

MAX_RELATIVE_ERROR = 5e-3
"""As the contract's; keys and values have 16 bits in both."""


@pytest.mark.parametrize("family", FAMILIES)
def test_takes_what_was_planned_and_computes_what_the_reference_does(family: str, tmp_path: Path) -> None:
    file = open_model(write_tiny_family(tmp_path / "tiny.gguf", family), [GgufFormat()])
    kv, limits = kv_layout(file.spec, 16, num_pages=16), StepLimits(max_tokens=64, max_logits=1, max_context_len=256)
    needs = CpuBackend().load(BackendOptions()).memory_needs(file.spec, file.weights, limits)
    native = NativeExecutor(file.spec, file.weights, kv, num_threads=1)
    matrices = sum(num_bytes for name, num_bytes in needs.weights.items() if len(file.weights.shape(name)) == 2)
    assert native.allocated_bytes == matrices + kv.total_bytes

    prompt = random_tokens(file.spec, 60)
    reference = KernelExecutor(reference_kernels(), file.spec, file.weights, kv)
    chunks = [prompt[:33], prompt[33:59], prompt[59:]]
    truth = logits_in_chunks(reference, kv, [prompt])
    assert relative_error(logits_in_chunks(native, kv, chunks), truth) <= MAX_RELATIVE_ERROR
    native.close()
    file.close()


@pytest.mark.parametrize("kv_type", KVType)
@pytest.mark.parametrize("family", ["llama4", "gemma3", "mistral3"])
def test_a_cache_takes_what_was_planned_at_every_precision(family: str, kv_type: KVType, tmp_path: Path) -> None:
    file = open_model(write_tiny_family(tmp_path / "tiny.gguf", family), [GgufFormat()])
    sizes = []
    for num_pages in (8, 16):
        kv = kv_layout(file.spec, 16, num_pages, kv_type)
        executor = NativeExecutor(file.spec, file.weights, kv, num_threads=1)
        sizes.append(executor.allocated_bytes)
        executor.close()
    assert sizes[1] - sizes[0] == kv.total_bytes // 2
    file.close()
