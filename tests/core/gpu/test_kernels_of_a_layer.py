"""How many kernels a layer takes in decode: what a step costs the host, and how often the device begins anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is made for Linux on x86-64")

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import OPERATIONS, PageBook, RandomWeights, Span, tiny_spec
from layerscale_core.conformance.executors import kv_layout
from layerscale_core.forward import KernelExecutor
from layerscale_core.gpu import attention, elementwise, heads, kv_cache, linear, sampling
from layerscale_core.gpu.triton_kernels import TritonKernels
from layerscale_core.gpu.tuning import PORTABLE, Launch
from layerscale_core.models import Matrix, ModelSpec
from layerscale_core.models.spec import VALUE
from layerscale_core.specs import KVType

DEVICE = torch.device("meta")
FIVE = ["project_heads_kernel", "attention_kernel", "linear_kernel", "gate_up_kernel", "linear_kernel"]

Decode = Callable[..., tuple[list[str], list[str]]]


class FinerValues(RandomWeights):
    """Values in 6 bits, beside queries and keys in 4: as files of Q4_K_M have them in half of their layers."""

    def __init__(self, spec: ModelSpec, layout: str) -> None:
        super().__init__(spec, layout)
        self._values = RandomWeights(spec, "6-bit, groups of 16")

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        return (self._values if name.endswith(VALUE) else super()).matrix(name, start, stop)


class Computed(TorchDispatchMode):
    """Torch's own operations that are kernels on a device: all but those that make or view a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and "empty" not in func.name():
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def decode(monkeypatch: pytest.MonkeyPatch) -> Decode:
    """Our kernels and torch's of a decode step, which are counted in place of being run.

    The device is torch's own for tensors without memory: what is still on the host when a kernel takes it, is found.
    """
    launched: list[str] = []

    def launch(kernel: Any, _grid: tuple[int, ...], _how: Launch, *arguments: Any, **_: Any) -> None:
        parts = [part for each in arguments for part in (each if isinstance(each, tuple) else (each,))]
        assert {part.device for part in parts if isinstance(part, torch.Tensor)} == {DEVICE}
        launched.append(kernel.__name__)

    for module in (attention, elementwise, heads, kv_cache, linear, sampling):
        monkeypatch.setattr(module, "launch", launch)
    monkeypatch.setattr(TritonKernels, "step_logits", lambda _, logits: logits)  # there is nothing to bring back

    def run(num_layers: int, make: type[RandomWeights] = RandomWeights, **shape: Any) -> tuple[list[str], list[str]]:
        kv_type = shape.pop("kv_type", KVType.FP16)
        spec = tiny_spec(num_layers=num_layers, **shape)
        kv = kv_layout(spec, 16, kv_type=kv_type)
        kernels = TritonKernels(DEVICE, CountingAllocator(2**30, "the test's memory"), PORTABLE)
        executor = KernelExecutor(kernels, spec, make(spec, "4-bit, groups of 32"), kv)
        book = PageBook(kv)
        step = book.batch([Span(book.sequence(), [1]), Span(book.sequence(), [2])])
        executor.step(step)  # what is joined and kept at the first step
        launched.clear()
        with Computed() as computed:
            executor.step(step)
        return list(launched), computed.names

    return run


def of_a_layer(decode: Decode, *how: Any, **shape: Any) -> list[str]:
    """What a second layer adds to a step of one."""
    (one, by_torch), (two, by_torch_of_two) = (decode(layers, *how, **shape) for layers in (1, 2))
    assert by_torch_of_two == by_torch, "torch computes nothing between a layer's kernels"
    added = len(two) - len(one)
    first = two.index(FIVE[0])
    return two[first : first + added]


@pytest.mark.parametrize("kv_type", KVType)
@pytest.mark.parametrize("operation", ["biases", "QK norm", "GELU", "window"])
def test_a_layer_is_five_kernels(decode: Decode, operation: str, kv_type: KVType) -> None:
    assert of_a_layer(decode, kv_type=kv_type, **OPERATIONS[operation]) == FIVE


def test_values_of_another_layout_take_one_more(decode: Decode) -> None:
    assert of_a_layer(decode, FinerValues) == [FIVE[0], *FIVE]


def test_a_norm_behind_a_product_is_one_more(decode: Decode) -> None:
    with_norms = [*FIVE[:3], "rms_norm_kernel", *FIVE[3:], "rms_norm_kernel"]
    assert of_a_layer(decode, has_post_norms=True) == with_norms
