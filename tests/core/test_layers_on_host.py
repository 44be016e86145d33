"""A model of which some layers stay on the host: computed as on one device alone, each layer's memory on its side."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import PageBook, RandomWeights, Span, tiny_spec
from layerscale_core.conformance.batching import BatchingContract
from layerscale_core.conformance.executors import kv_layout, logits_in_chunks, random_tokens, reference_executor
from layerscale_core.conformance.paging import PagingContract
from layerscale_core.errors import OutOfMemoryError, StepError
from layerscale_core.forward import HostLayers, KernelExecutor, make_executor
from layerscale_core.models import ModelSpec
from layerscale_core.models.spec import layer_shapes
from layerscale_core.reference import ReferenceKernels
from layerscale_core.specs import Capabilities, KVLayout, KVType, WeightSource

SPEC = tiny_spec(num_layers=4)
KV = kv_layout(SPEC, 16)
PLENTY = 1 << 30


class Sides:
    """The memories of a device and of the host, and kernels on each."""

    def __init__(self, device_bytes: int = PLENTY, host_bytes: int = PLENTY) -> None:
        self.device = CountingAllocator(device_bytes, "the device")
        self.host = CountingAllocator(host_bytes, "the host")

    def executor(
        self, on_host: tuple[int, ...], spec: ModelSpec = SPEC, weights: WeightSource | None = None, kv: KVLayout = KV
    ) -> KernelExecutor:
        host_layers = HostLayers(on_host, ReferenceKernels(self.host))
        return KernelExecutor(
            ReferenceKernels(self.device), spec, weights or RandomWeights(spec), kv, host_layers=host_layers
        )

    @property
    def used_bytes(self) -> tuple[int, int]:
        return self.device.stats().used_bytes, self.host.stats().used_bytes


class TestBothSides(BatchingContract, PagingContract):
    """Whatever is promised of batches and pages holds across both sides."""

    max_relative_error = 1e-5

    @pytest.fixture
    def backend(self) -> SimpleNamespace:
        return SimpleNamespace(capabilities=Capabilities(kv_types=tuple(KVType)))

    @pytest.fixture
    def device(self) -> SimpleNamespace:
        sides = Sides()
        return SimpleNamespace(make_executor=lambda spec, weights, kv: sides.executor((0,), spec, weights, kv))


@pytest.mark.parametrize("on_host", [(0,), (3,), (1, 2), (0, 2), (0, 1, 2), (0, 1, 2, 3)], ids=str)
def test_logits_are_those_of_one_side_alone_bit_for_bit(on_host: tuple[int, ...]) -> None:
    chunks = [random_tokens(SPEC, 20), [5], [7, 8, 9]]
    alone = logits_in_chunks(reference_executor(SPEC, KV), KV, chunks)
    np.testing.assert_array_equal(logits_in_chunks(Sides().executor(on_host), KV, chunks), alone)


def test_a_layers_weights_and_cache_are_where_it_is_computed() -> None:
    sides = Sides()
    layer_bytes = sum(4 * int(np.prod(shape)) for shape in layer_shapes(SPEC, 0).values())
    outer_bytes = 4 * SPEC.num_parameters - 4 * layer_bytes
    kv_bytes = KV.total_bytes // 4
    executor = sides.executor((0, 1, 3))
    assert sides.used_bytes == (outer_bytes + layer_bytes + kv_bytes, 3 * (layer_bytes + kv_bytes))
    executor.close()
    assert sides.used_bytes == (0, 0)
    sides.executor((0, 1, 2, 3))
    assert sides.used_bytes == (outer_bytes, 4 * (layer_bytes + kv_bytes))


@pytest.mark.parametrize("missing", ["device", "host"])
def test_what_does_not_fit_on_one_side_leaves_nothing_on_either(missing: str) -> None:
    needed = Sides()
    needed.executor((1,))
    room = dict(zip(("device", "host"), needed.used_bytes, strict=True))
    room[missing] -= 1
    sides = Sides(room["device"], room["host"])
    with pytest.raises(OutOfMemoryError, match=f"the {missing} has"):
        sides.executor((1,))
    assert sides.used_bytes == (0, 0)


def test_a_failing_host_fails_the_step_and_not_the_executor() -> None:
    host = ReferenceKernels(CountingAllocator(PLENTY, "the host"))
    device = ReferenceKernels(CountingAllocator(PLENTY, "the device"))
    executor = KernelExecutor(device, SPEC, RandomWeights(SPEC), KV, HostLayers((2,), host))
    book = PageBook(KV)
    prompt = book.batch([Span(book.sequence(), [1, 2, 3])])
    expected = executor.step(prompt).copy()
    working, host.linear = host.linear, lambda *_: 1 / 0
    with pytest.raises(StepError, match="the forward pass failed: ZeroDivisionError"):
        executor.step(prompt)
    host.linear = working
    assert (executor.step(prompt) == expected).all()


def test_cores_executor_serves_even_where_the_device_has_its_own() -> None:
    kernels = ReferenceKernels(CountingAllocator(PLENTY, "the device"))
    device = SimpleNamespace(make_executor=lambda *_: object(), make_kernels=lambda: kernels)
    host_layers = HostLayers((0,), ReferenceKernels(CountingAllocator(PLENTY, "the host")))
    assert isinstance(make_executor(device, SPEC, RandomWeights(SPEC), KV, host_layers), KernelExecutor)
