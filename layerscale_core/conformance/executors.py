"""What the backend's suites share: executors to compare, and how far apart two sets of logits are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance.random_model import RandomWeights
from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.forward import KernelExecutor, make_executor
from layerscale_core.models import ModelSpec
from layerscale_core.reference import ReferenceKernels
from layerscale_core.specs import Device, Executor, KVLayout, KVType

Logits = NDArray[np.float32]

NUM_PAGES = 48
"""Room for the suites' longest batch."""


def kv_layout(spec: ModelSpec, page_size: int, num_pages: int = NUM_PAGES, kv_type: KVType = KVType.FP16) -> KVLayout:
    """A cache for the model."""
    attention = spec.layers[0].attention
    return KVLayout(num_pages, page_size, len(spec.layers), attention.num_kv_heads, attention.head_dim, kv_type=kv_type)


def random_tokens(spec: ModelSpec, num_tokens: int, seed: int = 0) -> list[int]:
    """A prompt."""
    tokens: list[int] = np.random.default_rng(seed).integers(0, spec.vocab_size, num_tokens).tolist()
    return tokens


@contextmanager
def open_executor(device: Device, spec: ModelSpec, kv: KVLayout, layout: str = "f32") -> Iterator[Executor]:
    """The executor that a server would use on the device, on random weights."""
    executor = make_executor(device, spec, RandomWeights(spec, layout), kv)
    try:
        yield executor
    finally:
        executor.close()


def reference_kernels() -> ReferenceKernels:
    """Numpy, with memory without end."""
    return ReferenceKernels(CountingAllocator(2**40, "the reference's memory"))


def reference_executor(spec: ModelSpec, kv: KVLayout, layout: str = "f32") -> Executor:
    """The truth: numpy on the same weights."""
    return KernelExecutor(reference_kernels(), spec, RandomWeights(spec, layout), kv)


def logits_in_chunks(
    executor: Executor, kv: KVLayout, chunks: Sequence[Sequence[int]], seed: int = 0, position_gap: int = 0
) -> Logits:
    """Every token's logits of one lone sequence, computed chunk by chunk.

    Args:
        seed: picks the pages.
        position_gap: positions left out before each chunk.
    """
    book = PageBook(kv, seed)
    sequence = book.sequence()
    logits = []
    for chunk in chunks:
        sequence.next_position += position_gap
        logits.append(executor.step(book.batch([Span(sequence, chunk, True)])).copy())
    return np.concatenate(logits)


def cut(tokens: list[int], *sizes: int) -> list[list[int]]:
    """The tokens in chunks of the given sizes, the rest in a last one."""
    bounds = [0, *np.cumsum(sizes).tolist(), len(tokens)]
    return [tokens[start:stop] for start, stop in itertools.pairwise(bounds) if stop > start]


def relative_error(actual: Logits, truth: Logits) -> float:
    """Root mean square of the deviation, in units of the truth's own spread."""
    assert actual.shape == truth.shape
    assert actual.dtype == np.float32
    return float(np.sqrt(np.square(actual - truth).mean()) / truth.std())
