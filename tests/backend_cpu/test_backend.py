"""The embedded backend: what it says of itself, with and without native kernels."""

from __future__ import annotations

import sys

import pytest

from layerscale_backend_cpu import backend as backend_module
from layerscale_backend_cpu.backend import CpuBackend
from layerscale_backend_cpu.native_executor import (
    ISA_VARIABLE,
    NativeExecutor,
    measure_dot_rate,
    native_isa,
    supported_levels,
)
from layerscale_core.conformance import LAYOUTS, OPERATIONS, RandomWeights, tiny_spec
from layerscale_core.errors import BackendError, OutOfMemoryError
from layerscale_core.forward import KernelExecutor, make_executor
from layerscale_core.host import inspect_host
from layerscale_core.specs import ActivationType, BackendOptions, KVLayout, Probe, StepLimits

SPEC = tiny_spec()
LAYOUT = KVLayout(num_pages=4, page_size=16, num_layers=2, num_kv_heads=2, head_dim=16)

needs_native = pytest.mark.skipif(native_isa() is None, reason="the native kernels are not compiled")


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """As installed without a compiler."""
    monkeypatch.setattr(backend_module, "native_isa", lambda: None)


@needs_native
def test_the_probe_names_the_level_of_its_kernels() -> None:
    assert CpuBackend().probe() == Probe(10, f"{native_isa()} kernels")


def test_without_compiled_kernels_it_still_serves_and_says_so(without_native: None) -> None:
    assert CpuBackend().probe() == Probe(10, "numpy, no compiled kernels")


def test_a_forced_level_that_is_not_there_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise BackendError("avx1024 is not available here")

    monkeypatch.setattr(backend_module, "native_isa", refuse)
    assert CpuBackend().probe() == Probe(0, "avx1024 is not available here")
    with pytest.raises(BackendError, match="avx1024"):
        CpuBackend().load(BackendOptions())


def test_describes_the_host() -> None:
    [info] = CpuBackend().load(BackendOptions()).infos
    host = inspect_host()
    assert host.cpu_name in info.description
    assert info.total_memory_bytes == host.total_memory_bytes
    assert not info.is_accelerator


@needs_native
def test_the_number_of_threads_is_the_users_or_that_of_usable_cores() -> None:
    assert "7 threads" in CpuBackend().load(BackendOptions(num_threads=7)).infos[0].description
    usable = inspect_host().num_usable_cpus
    assert f"{usable} threads" in CpuBackend().load(BackendOptions()).infos[0].description


@needs_native
def test_native_kernels_need_no_notice() -> None:
    assert CpuBackend().load(BackendOptions(num_threads=2)).notices == ()


@pytest.mark.skipif(len(supported_levels()) < 2, reason="this processor has one level")
def test_kernels_that_do_not_load_are_a_notice_that_names_what_serves_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    best, second = supported_levels()[:2]
    monkeypatch.delenv(ISA_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, f"layerscale_backend_cpu._native_{best}", None)
    device = CpuBackend().load(BackendOptions())
    [notice] = device.notices
    assert f"kernels for {best}" in notice
    assert f"those for {second} are slower" in notice
    assert f"{second} kernels" in device.infos[0].description


def test_missing_kernels_are_a_notice_with_the_remedy(without_native: None) -> None:
    [notice] = CpuBackend().load(BackendOptions()).notices
    assert "not compiled" in notice
    assert "install a C++ compiler" in notice


def test_kernels_that_were_switched_off_are_a_notice_that_names_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "numpy")
    [notice] = CpuBackend().load(BackendOptions()).notices
    assert f"{ISA_VARIABLE}=numpy" in notice
    assert "unset it" in notice


def test_threads_without_effect_are_a_notice(without_native: None) -> None:
    notices = CpuBackend().load(BackendOptions(num_threads=2)).notices
    assert any("OPENBLAS_NUM_THREADS" in notice for notice in notices)


def test_activations_that_numpy_does_not_round_are_a_notice(without_native: None) -> None:
    notices = CpuBackend().load(BackendOptions(activation_type=ActivationType.INT8)).notices
    assert any("numpy multiplies in floats" in notice for notice in notices)


def test_without_native_kernels_core_builds_the_executor(without_native: None) -> None:
    device = CpuBackend().load(BackendOptions())
    assert device.make_executor(SPEC, RandomWeights(SPEC), LAYOUT) is None
    executor = make_executor(device, SPEC, RandomWeights(SPEC), LAYOUT)
    assert isinstance(executor, KernelExecutor)
    executor.close()


@needs_native
@pytest.mark.parametrize("activation_type", ActivationType)
def test_the_rate_of_dot_products_is_a_processors(activation_type: ActivationType) -> None:
    rate = measure_dot_rate(1, activation_type)
    assert rate is not None
    assert 1e8 < rate < 1e14


def test_without_native_kernels_there_is_no_rate_of_dot_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "numpy")
    assert measure_dot_rate(1, ActivationType.INT8) is None


@needs_native
def test_a_model_that_cannot_be_loaded_leaves_nothing_counted() -> None:
    class Unreadable(RandomWeights):
        def vector(self, name: str) -> None:
            raise OSError("the disk is gone")

    device = CpuBackend().load(BackendOptions(num_threads=1))
    with pytest.raises(OSError, match="the disk is gone"):
        device.make_executor(SPEC, Unreadable(SPEC), LAYOUT)
    assert device.allocator.stats().used_bytes == 0


@needs_native
def test_weights_that_do_not_fit_beside_the_cache_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    device = CpuBackend().load(BackendOptions(num_threads=1))
    rest = device.allocator.stats().total_bytes - LAYOUT.total_bytes - 100
    device.allocator.reserve(rest, "everything else")
    with pytest.raises(OutOfMemoryError, match=r"weights needs .* bytes, but host memory has 100 of"):
        device.make_executor(SPEC, RandomWeights(SPEC), LAYOUT)
    assert device.allocator.stats().used_bytes == rest


@needs_native
@pytest.mark.parametrize("layout", LAYOUTS)
def test_native_weights_take_what_was_said_to_the_byte(layout: str) -> None:
    spec = tiny_spec(hidden_size=96, vocab_size=131, tied_output=False)
    weights, limits = RandomWeights(spec, layout), StepLimits(max_tokens=8, max_logits=1, max_context_len=64)
    needs = CpuBackend().load(BackendOptions()).memory_needs(spec, weights, limits)
    executor = NativeExecutor(spec, weights, LAYOUT, num_threads=1)
    matrices = sum(num_bytes for name, num_bytes in needs.weights.items() if len(weights.shape(name)) == 2)
    assert executor.allocated_bytes - LAYOUT.total_bytes == matrices
    executor.close()


@needs_native
@pytest.mark.parametrize("operation", OPERATIONS)
def test_native_weights_of_every_operation_take_what_was_said(operation: str) -> None:
    spec = tiny_spec(**OPERATIONS[operation])
    weights, limits = RandomWeights(spec), StepLimits(max_tokens=8, max_logits=1, max_context_len=64)
    needs = CpuBackend().load(BackendOptions()).memory_needs(spec, weights, limits)
    executor = NativeExecutor(spec, weights, LAYOUT, num_threads=1)
    matrices = sum(num_bytes for name, num_bytes in needs.weights.items() if len(weights.shape(name)) == 2)
    assert executor.allocated_bytes - LAYOUT.total_bytes == matrices
    executor.close()


@needs_native
def test_native_workspace_counts_the_large_buffers() -> None:
    def workspace(max_tokens: int, max_logits: int) -> int:
        limits = StepLimits(max_tokens, max_logits, max_context_len=64)
        device = CpuBackend().load(BackendOptions())
        return device.memory_needs(SPEC, RandomWeights(SPEC), limits).workspace_bytes

    gate_and_up = 2 * SPEC.layers[0].mlp.intermediate_size
    assert workspace(512, 1) - workspace(256, 1) > 4 * 256 * gate_and_up
    assert workspace(512, 128) - workspace(512, 1) == 4 * 127 * (SPEC.hidden_size + SPEC.vocab_size)


def test_numpy_takes_four_bytes_a_weight(without_native: None) -> None:
    limits = StepLimits(max_tokens=8, max_logits=1, max_context_len=64)
    needs = CpuBackend().load(BackendOptions()).memory_needs(SPEC, RandomWeights(SPEC), limits)
    assert needs.weights_bytes == 4 * SPEC.num_parameters
