"""The forward pass over the Triton kernels, and decode steps in the buffers of recorded graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import OPERATIONS, PageBook, RandomWeights, Span, tiny_spec
from layerscale_core.conformance.executors import (
    kv_layout,
    logits_in_chunks,
    random_tokens,
    reference_executor,
    reference_kernels,
    relative_error,
)
from layerscale_core.forward import HostLayers, KernelExecutor
from layerscale_core.gpu.graphs import DecodeGraphs
from layerscale_core.gpu.logits import TorchLogits
from layerscale_core.gpu.triton_kernels import TritonKernels
from layerscale_core.models import Matrix, ModelSpec
from layerscale_core.models.spec import GATE, VALUE, weight_shapes
from layerscale_core.specs import Executor, KVLayout, KVType, StepLimits, WeightSource
from tests.support.gpu_layers import SMALL

CPU = torch.device("cpu")


def small_spec(num_layers: int = 1, **operations: Any) -> ModelSpec:
    """A model so small that an interpreter gets through it."""
    return tiny_spec(
        num_layers=num_layers,
        hidden_size=32,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=64,
        vocab_size=37,
        **operations,
    )


SPEC = small_spec()
PROMPT = random_tokens(SPEC, 19)
MAX_ERROR = {
    "f32": 1e-3,  # products in float32 leave the cache's float16
    "4-bit, groups of 32, mins": 5e-3,  # scales become float16
    "codebook, groups of 32": 5e-3,
    "8-bit, groups of 32": 5e-3,
}


class CountingRecorder:
    """Records nothing: computes again, over the same buffers, as a graph would."""

    num_recorded = 0

    def __call__(self, compute: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        self.num_recorded += 1
        return compute


class MixedWeights(RandomWeights):
    """Some matrices lie in another layout than those they are multiplied with, as in many files."""

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        others = RandomWeights(SPEC, "8-bit, groups of 32")
        return (others if name.endswith((VALUE, GATE)) else super()).matrix(name, start, stop)


def open_executor(
    spec: ModelSpec,
    kv: KVLayout,
    weights: WeightSource,
    dtype: torch.dtype = torch.float32,
    graphs: DecodeGraphs | None = None,
    host_layers: HostLayers | None = None,
) -> Executor:
    allocator = CountingAllocator(2**30, "the test's memory")
    kernels = TritonKernels(CPU, allocator, SMALL, dtype, graphs)
    needs = kernels.memory_needs(spec, weights, StepLimits(max_tokens=32, max_logits=4, max_context_len=256))
    executor = KernelExecutor(kernels, spec, weights, kv, host_layers)
    if host_layers is not None:
        return executor
    counted = allocator.stats().used_bytes - kv.total_bytes
    assert needs.weights.keys() == weight_shapes(spec).keys()
    assert counted <= needs.weights_bytes <= 1.1 * counted
    return executor


@pytest.mark.parametrize(
    ("layout", "operation"),
    [
        ("f32", "everything"),
        ("4-bit, groups of 32, mins", "GELU"),
        ("codebook, groups of 32", "QK norm"),
    ],
)
def test_a_prompt_and_what_follows_equal_the_reference(layout: str, operation: str) -> None:
    spec = small_spec(**OPERATIONS[operation])
    kv = kv_layout(spec, 16)
    executor = open_executor(spec, kv, RandomWeights(spec, layout))
    truth = logits_in_chunks(reference_executor(spec, kv, layout), kv, [PROMPT, [5]])
    assert relative_error(logits_in_chunks(executor, kv, [PROMPT, [5]]), truth) <= MAX_ERROR[layout]


def test_matrices_that_are_multiplied_together_may_differ_in_layout() -> None:
    kv = kv_layout(SPEC, 16)
    weights = MixedWeights(SPEC, "4-bit, groups of 32, mins")
    executor = open_executor(SPEC, kv, weights)
    reference = reference_executor(SPEC, kv)
    truth = logits_in_chunks(KernelExecutor(reference._device.kernels, SPEC, weights, kv), kv, [PROMPT, [5]])
    assert relative_error(logits_in_chunks(executor, kv, [PROMPT, [5]]), truth) <= 5e-3


def test_products_in_half_precision_stay_near() -> None:
    kv = kv_layout(SPEC, 16)
    executor = open_executor(SPEC, kv, RandomWeights(SPEC, "f16"), torch.float16)
    truth = logits_in_chunks(reference_executor(SPEC, kv, "f16"), kv, [PROMPT])
    assert relative_error(logits_in_chunks(executor, kv, [PROMPT]), truth) <= 0.01


@pytest.mark.parametrize(("kv_type", "max_error"), [(KVType.INT8, 0.01), (KVType.INT4, 0.06)])
def test_pages_of_codes_are_read_copied_shifted_and_returned(kv_type: KVType, max_error: float) -> None:
    kv = kv_layout(SPEC, 16, num_pages=12, kv_type=kv_type)
    ours, truth = open_executor(SPEC, kv, RandomWeights(SPEC)), reference_executor(SPEC, kv)
    assert relative_error(after_moves(ours, kv), after_moves(truth, kv)) <= max_error


def test_many_pages_leave_and_return_in_parts_and_content_of_another_size_is_refused() -> None:
    kv = kv_layout(SPEC, 16, num_pages=40, kv_type=KVType.INT8)
    executor = open_executor(SPEC, kv, RandomWeights(SPEC))
    page_ids = np.arange(39, 2, -1, dtype=np.int32)
    content = np.random.default_rng(0).integers(0, 100, (37, 16 * kv.bytes_per_token), np.uint8)
    executor.write_pages(page_ids, content)
    np.testing.assert_array_equal(executor.read_pages(page_ids), content)
    np.testing.assert_array_equal(executor.read_pages(page_ids[::-1]), content[::-1])
    for wrong in (content[1:], content[:, 1:], np.append(content, content[:1], axis=0)):
        with pytest.raises(ValueError, match=r"not the content of 37 pages"):
            executor.write_pages(page_ids, wrong + 1)
    np.testing.assert_array_equal(executor.read_pages(page_ids), content)


def after_moves(executor: Executor, kv: KVLayout) -> np.ndarray:
    """Logits behind a prompt whose pages were shifted, and behind one whose pages were copied, read and written."""
    book = PageBook(kv)
    shifted, original = book.sequence(), book.sequence()
    executor.step(book.batch([Span(shifted, PROMPT), Span(original, PROMPT)]))
    executor.shift_positions(np.array([page.page_id for page in shifted.pages], np.int32), 300)
    shifted.next_position += 300
    for page in original.pages:
        source, copy, last = (np.array([each], np.int32) for each in (page.page_id, book.take_page(), book.take_page()))
        executor.copy_pages(source, copy)
        executor.write_pages(last, executor.read_pages(copy))
        page.page_id = int(last[0])
    return executor.step(book.batch([Span(shifted, [7]), Span(original, [7])])).copy()


def test_recorded_decode_steps_are_the_eager_ones_bit_for_bit() -> None:
    kv = kv_layout(SPEC, 16)
    recorder = CountingRecorder()
    graphs = DecodeGraphs(CPU, (1, 3), recorder)
    recorded = decoded(open_executor(SPEC, kv, RandomWeights(SPEC), graphs=graphs), kv)
    eager = decoded(open_executor(SPEC, kv, RandomWeights(SPEC)), kv)
    for rows, expected in zip(recorded, eager, strict=True):
        np.testing.assert_array_equal(rows, expected)
    assert recorder.num_recorded == 2  # the bucket of four for three sequences and for two, that of one


@pytest.mark.parametrize("on_host", [(1,), None], ids=["a layer on the host", "experts"])
def test_what_cannot_be_recorded_is_computed_as_it_comes(on_host: tuple[int, ...] | None) -> None:
    spec = small_spec(num_layers=2) if on_host else small_spec(num_experts=3)
    kv = kv_layout(spec, 16)
    graphs = DecodeGraphs(CPU, (4,), CountingRecorder())
    host_layers = HostLayers(on_host, reference_kernels()) if on_host else None
    executor = open_executor(spec, kv, RandomWeights(spec), graphs=graphs, host_layers=host_layers)
    chunks = [PROMPT[:5], [7]]
    truth = logits_in_chunks(reference_executor(spec, kv), kv, chunks)
    assert relative_error(logits_in_chunks(executor, kv, chunks), truth) <= 1e-3


def decoded(executor: Executor, kv: KVLayout) -> list[np.ndarray]:
    """Logits of decode steps with more and with fewer sequences, at unequal lengths."""
    book = PageBook(kv)
    sequences = [book.sequence() for _ in range(4)]
    executor.step(book.batch([Span(each, PROMPT[: 6 * index + 1]) for index, each in enumerate(sequences)]))
    steps = [sequences[:3], sequences[1:3], sequences[:1], sequences]
    logits = []
    for running in steps:
        on_device = executor.step(book.batch([Span(each, [9]) for each in running]))
        assert isinstance(on_device, TorchLogits)
        logits.append(on_device.copy())
        assert on_device.likeliest == logits[-1].argmax(axis=1).tolist()
    return logits


def test_a_sequence_does_not_depend_on_its_neighbours_nor_on_its_chunks() -> None:
    kv = kv_layout(SPEC, 16)
    executor = open_executor(SPEC, kv, RandomWeights(SPEC), torch.float16)
    alone = logits_in_chunks(executor, kv, [PROMPT])[-1]
    np.testing.assert_array_equal(logits_in_chunks(executor, kv, [PROMPT[:5], PROMPT[5:18], PROMPT[18:]])[-1], alone)
    book = PageBook(kv, seed=4)
    sequence, other = book.sequence(), book.sequence()
    executor.step(book.batch([Span(sequence, PROMPT[:-1])]))
    both = executor.step(book.batch([Span(other, PROMPT[:7]), Span(sequence, PROMPT[-1:])]))
    np.testing.assert_array_equal(both[1], alone)
