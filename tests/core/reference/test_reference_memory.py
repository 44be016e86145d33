"""What the reference kernels say they need is what they take."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import PageBook, RandomWeights, Span, tiny_spec
from layerscale_core.conformance.executors import kv_layout
from layerscale_core.forward import KernelExecutor
from layerscale_core.model_part import ModelPart
from layerscale_core.models import Activation, ModelSpec
from layerscale_core.reference import ReferenceKernels, reference_memory_needs
from layerscale_core.specs import KVLayout, KVType, StepLimits

BOOKKEEPING_BYTES = 200_000
"""The batch's own arrays and what Python objects weigh."""

LARGEST = {
    "the MLP": (tiny_spec(intermediate_size=2048), StepLimits(max_tokens=512, max_logits=1, max_context_len=512)),
    "the experts": (
        tiny_spec(intermediate_size=1024, num_experts=4),
        StepLimits(max_tokens=512, max_logits=1, max_context_len=512),
    ),
    "GELU": (
        tiny_spec(intermediate_size=2048, activation=Activation.GELU_TANH),
        StepLimits(max_tokens=512, max_logits=1, max_context_len=512),
    ),
    "capped logits": (
        tiny_spec(vocab_size=8192, logit_softcap=3.0),
        StepLimits(max_tokens=64, max_logits=64, max_context_len=64),
    ),
    "the logits": (tiny_spec(vocab_size=8192), StepLimits(max_tokens=64, max_logits=64, max_context_len=64)),
    "the attention": (
        tiny_spec(num_heads=16, num_kv_heads=16, head_dim=64, num_layers=1),
        StepLimits(max_tokens=16, max_logits=1, max_context_len=2048),
    ),
}


@pytest.mark.parametrize("kv_type", KVType)
@pytest.mark.parametrize("case", LARGEST)
def test_the_largest_step_stays_within_the_workspace(case: str, kv_type: KVType) -> None:
    spec, limits = LARGEST[case]
    workspace_bytes = reference_memory_needs(spec, limits).workspace_bytes
    peak_bytes = peak_of_the_largest_step(spec, limits, kv_type)
    assert workspace_bytes > 5 * BOOKKEEPING_BYTES
    assert 0.4 * workspace_bytes < peak_bytes < workspace_bytes + BOOKKEEPING_BYTES


@pytest.mark.parametrize("case", LARGEST)
def test_layers_without_a_head_stay_within_a_workspace_without_logits(case: str) -> None:
    spec, limits = LARGEST[case]
    kernels = ReferenceKernels(CountingAllocator(1 << 32, "the test"))
    workspace_bytes = kernels.memory_needs(spec, RandomWeights(spec), replace(limits, max_logits=0)).workspace_bytes
    layers = ModelPart(kernels, spec, range(len(spec.layers)))
    kv = kv_layout(spec, 16, limits.max_context_len // 16)
    layers.load(RandomWeights(spec), kv)
    book = PageBook(kv)
    sequence = book.sequence()
    book.batch([Span(sequence, [0] * (limits.max_context_len - limits.max_tokens))])
    step = kernels.begin_step(book.batch([Span(sequence, [0] * limits.max_tokens)]))
    tracemalloc.start()
    try:
        x = np.ones((limits.max_tokens, spec.hidden_size), np.float32)
        for index in layers.layers:
            x = layers.run(x, step, [index])
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.4 * workspace_bytes < peak_bytes < workspace_bytes + BOOKKEEPING_BYTES


def peak_of_the_largest_step(spec: ModelSpec, limits: StepLimits, kv_type: KVType) -> int:
    """Bytes that the last of a context's steps takes at its peak, without the logits of the step before."""
    attention = spec.layers[0].attention
    num_pages = limits.max_context_len // 16
    kv = KVLayout(num_pages, 16, len(spec.layers), attention.num_kv_heads, attention.head_dim, kv_type=kv_type)
    executor = KernelExecutor(ReferenceKernels(CountingAllocator(1 << 32, "the test")), spec, RandomWeights(spec), kv)
    book = PageBook(kv)
    sequence = book.sequence()
    tokens = np.arange(limits.max_tokens) % spec.vocab_size
    last_logits = range(limits.max_tokens - limits.max_logits, limits.max_tokens)
    book.batch([Span(sequence, [0] * (limits.max_context_len - limits.max_tokens))])  # zeros take no less than keys
    last = book.batch([Span(sequence, tokens.tolist())], wanted=last_logits)
    tracemalloc.start()
    try:
        executor.step(last)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        executor.close()
