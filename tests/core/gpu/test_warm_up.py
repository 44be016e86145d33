"""An executor's first steps: they happen before anybody asks, change no answer, and fail as a start does."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import RandomWeights, tiny_spec
from layerscale_core.conformance.executors import kv_layout, logits_in_chunks, random_tokens, reference_executor
from layerscale_core.errors import BackendError, StepError
from layerscale_core.gpu.device import TorchDevice
from layerscale_core.gpu.torch_kernels import TorchKernels
from layerscale_core.gpu.torch_step import TorchStep
from layerscale_core.gpu.warm_up import step_batch, warm_up
from layerscale_core.specs import DeviceInfo, StepBatch, StepLimits

SPEC = tiny_spec()
KV = kv_layout(SPEC, 16)
PROMPT = random_tokens(SPEC, 20)


class Recording(TorchKernels):
    """Remembers the sizes of its steps, and fails at the one that it is told."""

    sizes: list[tuple[int, int]]
    broken_at: int | None = None

    def begin_step(self, batch: StepBatch) -> TorchStep:
        self.sizes.append((batch.num_seqs, batch.num_tokens))
        if batch.num_tokens == self.broken_at:
            raise RuntimeError("no kernel image is available")
        return super().begin_step(batch)


@pytest.fixture
def allocator() -> CountingAllocator:
    return CountingAllocator(2**28, "the test's memory")


@pytest.fixture
def kernels(allocator: CountingAllocator) -> Recording:
    kernels = Recording(torch.device("cpu"), allocator, rows_per_product=8)
    kernels.sizes = []
    return kernels


@pytest.fixture
def device(kernels: Recording, allocator: CountingAllocator) -> TorchDevice:
    info = DeviceInfo("test", "torch on the CPU", 2**28, 2**28, is_accelerator=True)
    return TorchDevice(lambda: info, allocator, lambda: kernels, first_steps=partial(warm_up, buckets=(1, 4)))


def test_every_kind_of_step_was_taken_before_the_first_request(device: TorchDevice, kernels: Recording) -> None:
    executor = device.make_executor(SPEC, RandomWeights(SPEC), KV)
    assert executor is not None
    assert kernels.sizes == [(1, 2), (1, 64), (1, 1), (4, 4)]
    truth = logits_in_chunks(reference_executor(SPEC, KV), KV, [PROMPT])
    np.testing.assert_allclose(logits_in_chunks(executor, KV, [PROMPT]), truth, atol=1e-3)


@pytest.mark.parametrize(("max_tokens", "lengths"), [(300, [2, 64, 300]), (40, [2, 40]), (64, [2, 64])])
def test_the_largest_step_that_was_planned_is_taken_and_none_beyond(
    device: TorchDevice, kernels: Recording, max_tokens: int, lengths: list[int]
) -> None:
    device.memory_needs(SPEC, RandomWeights(SPEC), StepLimits(max_tokens, max_logits=4, max_context_len=1024))
    device.make_executor(SPEC, RandomWeights(SPEC), kv_layout(SPEC, 16))
    assert [size for num_seqs, size in kernels.sizes if num_seqs == 1] == [*lengths, 1]


def test_a_device_that_cannot_take_them_ends_the_start_and_keeps_nothing(
    device: TorchDevice, kernels: Recording, allocator: CountingAllocator
) -> None:
    kernels.broken_at = 64
    with pytest.raises(BackendError, match=r"the GPU fails at a first step: .* no kernel image is available") as error:
        device.make_executor(SPEC, RandomWeights(SPEC), KV)
    assert isinstance(error.value.__cause__, StepError)
    assert allocator.stats().used_bytes == 0


def test_steps_that_do_not_fit_the_cache_are_left_out(device: TorchDevice, kernels: Recording) -> None:
    device.make_executor(SPEC, RandomWeights(SPEC), kv_layout(SPEC, 16, num_pages=2))
    assert kernels.sizes == [(1, 2), (1, 1)]


def test_a_batch_continues_sequences_of_any_length() -> None:
    batch = step_batch(KV, num_seqs=2, num_cached=17, num_new=3)
    assert batch.page_tables.tolist() == [[0, 1], [2, 3]]
    assert batch.page_stops.tolist() == [[16, 4], [16, 4]]
    assert batch.slot_mapping.tolist() == [17, 18, 19, 49, 50, 51]
    assert batch.positions.tolist() == [17, 18, 19] * 2
    assert batch.logits_indices.tolist() == [2, 5]
