"""Offloaded layers on the native kernels, beside a device that computes the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from layerscale_backend_cpu.backend import CpuBackend, CpuDevice
from layerscale_backend_cpu.native_executor import ISA_VARIABLE, NativeExecutor, native_isa
from layerscale_core.conformance import BackendContract, PageBook, RandomWeights, Span, tiny_spec
from layerscale_core.conformance.batching import BatchingContract
from layerscale_core.conformance.executors import (
    kv_layout,
    logits_in_chunks,
    random_tokens,
    reference_kernels,
    relative_error,
)
from layerscale_core.conformance.paging import PagingContract
from layerscale_core.errors import StepError
from layerscale_core.forward import HostLayers, KernelExecutor
from layerscale_core.models import ModelSpec
from layerscale_core.specs import (
    ActivationType,
    BackendOptions,
    Capabilities,
    HostedLayers,
    Kernels,
    KVLayout,
    KVType,
    StepBatch,
    WeightSource,
)

pytestmark = pytest.mark.skipif(native_isa() is None, reason="the native kernels are not compiled")

SPEC = tiny_spec(num_layers=4)
KV = kv_layout(SPEC, 16)
LAYOUT = "4-bit, groups of 32, mins"
WEIGHTS = RandomWeights(SPEC, LAYOUT)
TOKENS = random_tokens(SPEC, 40)
CONTRACT = BackendContract()


def load() -> CpuDevice:
    return CpuBackend().load(BackendOptions(num_threads=2, activation_type=ActivationType.INT16))


def offload(
    on_host: tuple[int, ...],
    spec: ModelSpec = SPEC,
    weights: WeightSource = WEIGHTS,
    kv: KVLayout = KV,
) -> KernelExecutor:
    """These layers on the CPU backend, the others on the reference kernels."""
    return KernelExecutor(reference_kernels(), spec, weights, kv, HostLayers.on(load(), on_host))


def hosted(*layers: int) -> HostedLayers:
    made = load().make_layers(SPEC, WEIGHTS, replace(KV, num_layers=len(layers)), layers)
    assert made is not None
    return made


def batch_of(num_tokens: int) -> StepBatch:
    book = PageBook(KV)
    return book.batch([Span(book.sequence(), TOKENS[:num_tokens])])


def activations(num_tokens: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(num_tokens, SPEC.hidden_size)).astype(np.float32)


class TestBesideADevice(BatchingContract, PagingContract):
    """Whatever is promised of batches and pages holds across both sides."""

    max_relative_error = 5e-3  # that of the CPU backend

    @pytest.fixture
    def backend(self) -> SimpleNamespace:
        return SimpleNamespace(capabilities=Capabilities(kv_types=tuple(KVType)))

    @pytest.fixture
    def device(self) -> SimpleNamespace:
        return SimpleNamespace(make_executor=lambda spec, weights, kv: offload((0,), spec, weights, kv))


class TakesTheFirstLayers(CpuDevice):
    """Whichever it was asked for."""

    def make_layers(self, spec: ModelSpec, weights: WeightSource, kv: KVLayout, layers: Sequence[int]) -> HostedLayers:
        return super().make_layers(spec, weights, kv, range(len(layers)))


class KeepsAByte(CpuDevice):
    """Of what it loaded."""

    def make_layers(self, *of_layers: Any) -> HostedLayers:
        self.allocator.reserve(1, "what is forgotten")
        return super().make_layers(*of_layers)


@pytest.mark.parametrize(
    ("device", "promise"),
    [
        (TakesTheFirstLayers, partial(CONTRACT.test_a_host_of_layers_computes_what_others_offload, on_host=(1,))),
        (KeepsAByte, CONTRACT.test_hosted_layers_take_their_part_and_give_it_back),
    ],
)
def test_the_contract_finds_a_wrong_host(device: type[CpuDevice], promise: Callable[..., None]) -> None:
    options = BackendOptions(num_threads=1, activation_type=ActivationType.INT16)
    promise(CpuBackend(), CpuDevice(native_isa(), options))
    with pytest.raises(AssertionError):
        promise(CpuBackend(), device(native_isa(), options))


@pytest.mark.parametrize("on_host", [(0,), (3,), (1, 2), (0, 2), (0, 1, 3), (0, 1, 2, 3)], ids=str)
def test_logits_are_those_of_the_cpu_backend_alone(on_host: tuple[int, ...]) -> None:
    chunks = [TOKENS[:30], TOKENS[30:31], TOKENS[31:]]
    alone = logits_in_chunks(NativeExecutor(SPEC, WEIGHTS, KV, num_threads=2), KV, chunks)
    split = logits_in_chunks(offload(on_host), KV, chunks)
    assert relative_error(split, alone) <= TestBesideADevice.max_relative_error


def test_layers_compute_the_same_one_by_one_as_together() -> None:
    batch, x = batch_of(20), activations(20)
    given = x.copy()
    together = hosted(1, 2, 3).run(x, batch, range(3))
    np.testing.assert_array_equal(x, given)
    one_by_one = hosted(1, 2, 3)
    for layer in range(3):
        x = one_by_one.run(x, batch, range(layer, layer + 1))
    np.testing.assert_array_equal(x, together)
    np.testing.assert_array_equal(hosted(3).run(hosted(1, 2).run(given, batch, range(2)), batch, range(1)), together)


def test_numpy_computes_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_none(_: CpuDevice) -> Kernels:
        return SimpleNamespace()  # type: ignore[return-value]  # whatever is asked of them fails

    monkeypatch.setattr(CpuDevice, "make_kernels", make_none)
    logits_in_chunks(offload((0, 1, 2)), KV, [TOKENS])
    monkeypatch.setenv(ISA_VARIABLE, "numpy")
    with pytest.raises(AttributeError, match="SimpleNamespace"):
        offload((0, 1, 2))


@pytest.mark.parametrize(
    ("num_rows", "layers"), [(19, range(2)), (20, range(3)), (20, range(-1, 1)), (20, range(2, 1))], ids=str
)
def test_what_points_outside_is_refused_and_harms_nothing(num_rows: int, layers: range) -> None:
    on_host, batch, x = hosted(0, 2), batch_of(20), activations(20)
    before = on_host.run(x, batch, range(2)).copy()
    with pytest.raises(StepError, match="the CPU executor refused a step"):
        on_host.run(x[:num_rows], batch, layers)
    with pytest.raises(StepError, match="slot out of range"):
        on_host.run(x, replace(batch, slot_mapping=batch.slot_mapping + KV.num_pages * KV.page_size), range(2))
    np.testing.assert_array_equal(on_host.run(x, batch, range(2)), before)
