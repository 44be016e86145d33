"""Which decode steps are recorded, and how a step's arrays reach the device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from layerscale_core.gpu.graphs import DecodeGraphs, DecodeStep
from layerscale_core.gpu.transfer import to_device
from layerscale_core.gpu.warm_up import step_batch
from layerscale_core.specs import KVLayout, StepBatch

CPU = torch.device("cpu")
KV = KVLayout(num_pages=4096, page_size=16, num_layers=1, num_kv_heads=1, head_dim=16)


class PageCounter:
    """Records a step as the sum of its sequences' pages, read from the buffers."""

    num_recorded = 0

    def __init__(self, max_pages: int = 2**16) -> None:
        self.graphs = DecodeGraphs(CPU, (1, 4), self.record, max_pages)

    def record(self, compute: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        self.num_recorded += 1
        return compute

    def count(self, batch: StepBatch) -> list[int] | None:
        step = self.graphs.step(batch)
        return None if step is None else self.graphs.run(step, self.compute).tolist()

    @staticmethod
    def compute(step: DecodeStep) -> torch.Tensor:
        return step.tensors.page_offsets.diff()[: step.bucket]


def test_one_recording_of_a_bucket_serves_every_length() -> None:
    counter = PageCounter()
    for num_cached in (3, 70, 19_000, 40):
        num_pages = num_cached // 16 + 1
        assert counter.count(step_batch(KV, 3, num_cached, 1)) == [num_pages] * 3
        assert counter.count(step_batch(KV, 1, num_cached, 1)) == [num_pages]
    assert counter.num_recorded == 2


def test_steps_that_the_buffers_do_not_hold_or_that_are_no_decoding_are_not_recorded() -> None:
    counter = PageCounter(max_pages=12)
    assert counter.count(step_batch(KV, 4, 40, 1)) == [3] * 4
    assert counter.count(step_batch(KV, 4, 48, 1)) is None
    assert counter.count(step_batch(KV, 5, 0, 1)) is None
    assert counter.count(step_batch(KV, 2, 0, 2)) is None


def test_arrays_cross_together_and_stay_what_they_were() -> None:
    arrays = [
        np.array([1, -2, 3], np.int32),
        np.empty(0, np.int32),
        np.array([[2**40], [-1]], np.int64),
        np.arange(12, dtype=np.int32).reshape(4, 3)[:, ::2],
    ]
    tensors = to_device(arrays, CPU)
    for tensor, array in zip(tensors, arrays, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype
        assert tensor.is_contiguous()
    origin = tensors[0].data_ptr()
    assert [(tensor.data_ptr() - origin) % 16 for tensor in tensors if tensor.numel()] == [0, 0, 0]
