"""Mixtures of experts where products are bfloat16, which the interpreter is taught here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import KernelsContract, RandomWeights, tiny_spec
from layerscale_core.conformance.clear_prompts import clear_prompt
from layerscale_core.conformance.executors import kv_layout, logits_in_chunks, reference_executor, relative_error
from layerscale_core.conformance.side_by_side import SideBySide
from layerscale_core.forward import KernelExecutor
from layerscale_core.gpu.triton_kernels import TritonKernels
from tests.support.gpu_layers import SMALL

CPU = torch.device("cpu")
CONTRACT = KernelsContract()
MAX_ERROR = 0.01


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """To the nearest, as devices do; the interpreter cuts off."""
    return torch.from_numpy(values.copy()).bfloat16().view(torch.uint16).numpy()


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter holds bfloat16 as bit patterns, and would multiply those."""
    builder = interpreter.InterpreterBuilder
    dot, cast = builder.create_dot, builder.cast_impl

    def create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        if a.dtype.scalar == tl.bfloat16:
            a, b = (interpreter.TensorHandle(widened(operand.data), tl.float32) for operand in (a, b))
        return dot(self, a, b, *others)

    def cast_impl(self: Any, source: Any, target: Any) -> Any:
        if (source.dtype.scalar, target.scalar) == (tl.float32, tl.bfloat16):
            return interpreter.TensorHandle(rounded(source.data), tl.bfloat16)
        return cast(self, source, target)

    monkeypatch.setattr(builder, "create_dot", create_dot)
    monkeypatch.setattr(builder, "cast_impl", cast_impl)


@pytest.fixture
def kernels() -> TritonKernels:
    return TritonKernels(CPU, CountingAllocator(2**30, "the test's memory"), SMALL, torch.bfloat16)


@pytest.fixture
def both(kernels: TritonKernels) -> SideBySide:
    return SideBySide(kernels, MAX_ERROR)


def test_experts_that_score_nearly_alike_are_told_apart(both: SideBySide) -> None:
    CONTRACT.test_experts_that_score_nearly_alike_are_told_apart(both)


def test_a_mixture_is_as_near_as_its_experts_products(both: SideBySide) -> None:
    CONTRACT.test_mixture(both, is_normalized=True, num_tokens=9)


def test_a_model_whose_experts_are_chosen_clearly_is_near_the_reference(kernels: TritonKernels) -> None:
    spec = tiny_spec(num_experts=4, num_layers=1, hidden_size=32, intermediate_size=32, vocab_size=37)
    kv, prompt = kv_layout(spec, 16), clear_prompt(spec, 7, min_margin=0.1)
    executor = KernelExecutor(kernels, spec, RandomWeights(spec), kv)
    truth = logits_in_chunks(reference_executor(spec, kv), kv, [prompt])
    assert relative_error(logits_in_chunks(executor, kv, [prompt]), truth) <= 0.02
