"""Core's executor over kernels: who builds it, and what becomes of errors. Its arithmetic is tested elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import PageBook, RandomWeights, Span, tiny_spec
from layerscale_core.conformance.executors import logits_in_chunks
from layerscale_core.errors import OutOfMemoryError, StepError
from layerscale_core.forward import HostLayers, KernelExecutor, make_executor
from layerscale_core.models import ModelSpec
from layerscale_core.reference import ReferenceKernels
from layerscale_core.specs import KVLayout

SPEC = tiny_spec()
LAYOUT = KVLayout(num_pages=8, page_size=4, num_layers=2, num_kv_heads=2, head_dim=16)
PLENTY = 2**30


def make_kernels(total_bytes: int = PLENTY) -> ReferenceKernels:
    return ReferenceKernels(CountingAllocator(total_bytes, "the test's memory"))


def device_with(executor: object) -> SimpleNamespace:
    return SimpleNamespace(make_executor=lambda spec, weights, kv: executor, make_kernels=make_kernels)


def test_a_devices_own_executor_is_preferred() -> None:
    own = object()
    assert make_executor(device_with(own), SPEC, RandomWeights(SPEC), LAYOUT) is own


def test_core_builds_one_over_the_kernels_where_the_device_has_none() -> None:
    assert isinstance(make_executor(device_with(None), SPEC, RandomWeights(SPEC), LAYOUT), KernelExecutor)


@pytest.mark.parametrize("error", [RuntimeError("lost device"), OutOfMemoryError("no scratch"), MemoryError()])
def test_a_failing_kernel_fails_the_step_and_not_the_executor(error: Exception) -> None:
    kernels = make_kernels()
    executor = KernelExecutor(kernels, SPEC, RandomWeights(SPEC), LAYOUT)
    book = PageBook(LAYOUT)
    prompt = book.batch([Span(book.sequence(), [1, 2, 3])])
    expected = executor.step(prompt).copy()

    def fail(*_arguments: object) -> None:
        raise error

    working, kernels.attention = kernels.attention, fail
    with pytest.raises(StepError, match=f"the forward pass failed: {type(error).__name__}: {error}") as failure:
        executor.step(prompt)
    assert failure.value.__cause__ is error
    kernels.attention = working
    assert (executor.step(prompt) == expected).all()


def test_kernels_are_released_when_weights_cannot_be_read() -> None:
    class Unreadable(RandomWeights):
        def vector(self, name: str) -> None:
            raise OSError("the disk is gone")

    kernels = make_kernels()
    allocator = CountingAllocator(PLENTY, "the test's memory")
    kernels = ReferenceKernels(allocator)
    with pytest.raises(OSError, match="the disk is gone"):
        KernelExecutor(kernels, SPEC, Unreadable(SPEC), LAYOUT)
    assert allocator.stats().used_bytes == 0


def test_the_cache_of_the_file_is_dropped_once_everything_is_read() -> None:
    events = []

    class Recording(RandomWeights):
        def matrix(self, name: str, *rows: int) -> object:
            events.append("read")
            return super().matrix(name, *rows)

        def drop_cache(self) -> None:
            events.append("drop")

    KernelExecutor(make_kernels(), SPEC, Recording(SPEC), LAYOUT)
    assert events.count("drop") == 1
    assert events[-1] == "drop"


class Replaying(ReferenceKernels):
    """Counts the steps that could have been recorded."""

    num_steps = 0

    def run_step(self, step: object, compute: Callable[[object], object]) -> object:
        self.num_steps += 1
        return super().run_step(step, compute)


def test_a_step_of_one_device_is_handed_to_its_kernels_as_a_whole() -> None:
    kernels = Replaying(CountingAllocator(PLENTY, "the test's memory"))
    executor = KernelExecutor(kernels, SPEC, RandomWeights(SPEC), LAYOUT)
    assert logits_in_chunks(executor, LAYOUT, [[1, 2, 3], [4]]).shape == (4, SPEC.vocab_size)
    assert kernels.num_steps == 2
    book = PageBook(LAYOUT)
    executor.step(book.batch([Span(book.sequence(), [1])], wanted=[]))
    assert kernels.num_steps == 2


@pytest.mark.parametrize(
    ("spec", "host_layers"),
    [
        pytest.param(SPEC, HostLayers((1,), make_kernels()), id="a layer elsewhere"),
        pytest.param(tiny_spec(num_experts=3), None, id="experts, chosen by the tokens"),
    ],
)
def test_what_cannot_be_replayed_is_not_handed_over(spec: ModelSpec, host_layers: HostLayers | None) -> None:
    kernels = Replaying(CountingAllocator(PLENTY, "the test's memory"))
    executor = KernelExecutor(kernels, spec, RandomWeights(spec), LAYOUT, host_layers)
    logits_in_chunks(executor, LAYOUT, [[1, 2, 3]])
    assert kernels.num_steps == 0
