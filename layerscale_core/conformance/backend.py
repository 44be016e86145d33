"""The contract of a backend: probe, load, memory, numerics, batching and paging."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from layerscale_core.conformance.batching import BatchingContract
from layerscale_core.conformance.device import DeviceUnderTest
from layerscale_core.conformance.executors import kv_layout, logits_in_chunks, open_executor, random_tokens
from layerscale_core.conformance.numerics import NumericsContract
from layerscale_core.conformance.paging import PagingContract
from layerscale_core.conformance.random_model import LAYOUTS, RandomWeights, tiny_spec
from layerscale_core.errors import OutOfMemoryError
from layerscale_core.forward import KernelExecutor, make_executor
from layerscale_core.models import ModelSpec
from layerscale_core.models.spec import layer_shapes, weight_shapes
from layerscale_core.specs import (
    Backend,
    BackendOptions,
    Device,
    Executor,
    KVLayout,
    KVType,
    LayersHost,
    MemoryNeeds,
    StepLimits,
    WeightSource,
)

HEAVY_MODULES = ("torch", "triton", "jax", "tensorflow", "cupy", "onnxruntime", "numba")

_PROBE_ALL = """
import importlib, sys
for backend in importlib.import_module({module!r}).layerscale_backends():
    backend.probe()
print(*sys.modules)
"""


class BackendContract(DeviceUnderTest, NumericsContract, BatchingContract, PagingContract):
    """Every promise of ``Backend``, ``Device``, ``Allocator`` and ``Executor``. To run where the device is present."""

    # Backend

    def test_is_named_for_a_command_line(self, backend: Backend) -> None:
        """``name``: lower case, one word."""
        assert backend.name == backend.name.lower()
        assert len(backend.name.split()) == 1

    def test_declares_capabilities_that_loading_does_not_change(self, backend: Backend) -> None:
        """``capabilities``: the same before and after ``load``; there is a page size, and half precision."""
        declared = backend.capabilities
        assert declared.page_sizes
        assert min(declared.page_sizes) >= 1
        assert KVType.FP16 in declared.kv_types
        for activation_type in (None, *declared.activation_types):
            backend.load(BackendOptions(activation_type=activation_type))
        assert backend.capabilities == declared

    def test_probe_finds_the_device_and_says_so_in_one_line(self, backend: Backend) -> None:
        """``probe``: a score and a reason."""
        probe = backend.probe()
        assert probe.score > 0, f"the suite needs the device: {probe.reason}"
        assert probe.reason
        assert len(probe.reason.splitlines()) == 1

    def test_probe_is_light(self) -> None:
        """Listing, constructing and probing backends imports nothing heavy: shown in a process of its own."""
        command = [sys.executable, "-c", _PROBE_ALL.format(module=self.plugin_module)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own words)
        assert result.returncode == 0, result.stderr
        assert not set(HEAVY_MODULES) & set(result.stdout.split())

    # Device

    def test_describes_its_devices(self, device: Device) -> None:
        """``infos``: at least one, with memory that adds up."""
        assert device.infos
        for info in device.infos:
            assert info.name
            assert info.description
            assert 0 <= info.free_memory_bytes <= info.total_memory_bytes

    def test_notices_are_lines(self, device: Device) -> None:
        """``notices``: each one line for a person."""
        assert all(notice and len(notice.splitlines()) == 1 for notice in device.notices)

    # Memory

    def test_allocator_counts_what_is_reserved_and_released(self, device: Device) -> None:
        """``reserve`` and ``release`` are a pair."""
        before = device.allocator.stats()
        device.allocator.reserve(4096, "test")
        during = device.allocator.stats()
        assert during.used_bytes == before.used_bytes + 4096
        assert during.free_bytes == before.free_bytes - 4096
        device.allocator.release(4096, "test")
        assert device.allocator.stats() == before

    def test_allocator_refuses_what_does_not_fit(self, device: Device) -> None:
        """``reserve``: the error names the label and both numbers, and nothing is reserved."""
        before = device.allocator.stats()
        wanted = before.free_bytes + 1
        with pytest.raises(OutOfMemoryError) as refusal:
            device.allocator.reserve(wanted, "the last straw")
        message = str(refusal.value).replace(",", "")
        assert "the last straw" in message
        assert str(wanted) in message
        assert str(before.free_bytes) in message
        assert device.allocator.stats() == before

    def test_an_executor_is_counted_and_gives_everything_back(self, backend: Backend, device: Device) -> None:
        """What is kept on the device is counted; ``close`` frees it, and again does nothing."""
        spec = tiny_spec()
        kv = kv_layout(spec, backend.capabilities.page_sizes[0])
        before = device.allocator.stats().used_bytes
        executor = make_executor(device, spec, RandomWeights(spec), kv)
        assert device.allocator.stats().used_bytes >= before + kv.total_bytes + spec.num_parameters
        executor.close()
        executor.close()
        assert device.allocator.stats().used_bytes == before

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_says_what_a_model_takes_before_it_is_loaded(self, backend: Backend, device: Device, layout: str) -> None:
        """``memory_needs``: every weight, and never less than is then counted."""
        _check_needs(backend, device, layout, device.memory_needs, partial(make_executor, device))

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_kernels_say_what_a_model_takes_too(self, backend: Backend, device: Device, layout: str) -> None:
        """``Kernels.memory_needs``: the same for core's forward pass, whether or not it is what serves."""
        kernels = device.make_kernels()
        _check_needs(backend, device, layout, kernels.memory_needs, partial(KernelExecutor, kernels))

    def test_hosted_layers_take_their_part_and_give_it_back(self, backend: Backend, device: Device) -> None:
        """``LayersHost``: no more than ``memory_needs`` says of those layers, and nothing after ``close``."""
        if not isinstance(device, LayersHost):
            pytest.skip("its kernels compute them: ``make_layers`` is optional")
        spec = tiny_spec(num_layers=3)
        weights, kv = RandomWeights(spec), replace(kv_layout(spec, backend.capabilities.page_sizes[0]), num_layers=2)
        needs = device.memory_needs(spec, weights, StepLimits(max_tokens=32, max_logits=0, max_context_len=256))
        before = device.allocator.stats().used_bytes
        hosted = device.make_layers(spec, weights, kv, (0, 2))
        if hosted is None:
            pytest.skip("left to core here, as it may be")
        counted = device.allocator.stats().used_bytes - before - kv.total_bytes
        promised = sum(needs.weights[name] for index in (0, 2) for name in layer_shapes(spec, index))
        assert counted <= promised <= 1.1 * counted
        hosted.close()
        hosted.close()
        assert device.allocator.stats().used_bytes == before
        too_many = replace(kv, num_pages=device.allocator.stats().total_bytes)
        with pytest.raises(OutOfMemoryError):
            device.make_layers(spec, weights, too_many, (0, 2))
        assert device.allocator.stats().used_bytes == before

    def test_a_host_is_no_accelerator(self, backend: Backend, device: Device) -> None:
        """``Capabilities.is_host``: what computes from the host's memory has no other."""
        assert not (backend.capabilities.is_host and any(info.is_accelerator for info in device.infos))

    def test_a_cache_that_does_not_fit_is_refused_and_nothing_stays(self, backend: Backend, device: Device) -> None:
        """``make_executor``: out of memory is ``OutOfMemoryError``, and the device is as before."""
        spec = tiny_spec()
        page_size = backend.capabilities.page_sizes[0]
        one_page = kv_layout(spec, page_size, num_pages=1).total_bytes
        too_many = device.allocator.stats().total_bytes // one_page + 1
        before = device.allocator.stats()
        with pytest.raises(OutOfMemoryError):
            make_executor(device, spec, RandomWeights(spec), kv_layout(spec, page_size, too_many))
        assert device.allocator.stats() == before
        kv = kv_layout(spec, page_size)
        with open_executor(device, spec, kv) as executor:
            assert logits_in_chunks(executor, kv, [random_tokens(spec, 3)]).shape == (3, spec.vocab_size)


def _check_needs(
    backend: Backend,
    device: Device,
    layout: str,
    memory_needs: Callable[[ModelSpec, WeightSource, StepLimits], MemoryNeeds],
    load: Callable[[ModelSpec, WeightSource, KVLayout], Executor],
) -> None:
    spec = tiny_spec(tied_output=False)
    kv = kv_layout(spec, backend.capabilities.page_sizes[0])
    weights = RandomWeights(spec, layout)
    needs = memory_needs(spec, weights, StepLimits(max_tokens=32, max_logits=4, max_context_len=256))
    before = device.allocator.stats().used_bytes
    executor = load(spec, weights, kv)
    counted = device.allocator.stats().used_bytes - before - kv.total_bytes
    executor.close()
    assert needs.weights.keys() == weight_shapes(spec).keys()
    assert needs.workspace_bytes > 0
    assert counted <= needs.weights_bytes <= 1.1 * counted
