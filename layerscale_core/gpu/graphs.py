"""Decode steps recorded as graphs: one for each number of sequences up to a bucket, whatever their lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscale_core.gpu.step import QueryTiles, StepTensors, page_offsets, write_pages
from layerscale_core.gpu.transfer import Form, host_memory, packed_bytes, unpacked
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.models import AttentionSpec
from layerscale_core.specs.executor import StepBatch

MAX_PAGES = 2**16
"""Of a recorded step: a million tokens in pages of 16. The indices of so many take a megabyte."""

Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Records what a function does on the device; the result does it again, and returns the same tensor every time."""


class DecodeBuffers:
    """The tensors of every decode step that is recorded, filled by one copy.

    All buckets share them. What a step has of pages lies behind all else and is as long as it is, so that the copy is
    no longer than the step, while what was recorded serves contexts of any length.

    Args:
        max_seqs: sequences of the largest bucket.
        max_pages: pages of a step's sequences together.
    """

    def __init__(self, max_seqs: int, max_pages: int, device: torch.device) -> None:
        forms: list[Form] = [
            (torch.int64, (max_seqs,)),
            *[(torch.int32, (max_seqs,))] * 3,
            (torch.int32, (max_seqs + 1,)),
            (torch.int32, (max_pages, 4)),
        ]
        sizes = packed_bytes(forms)
        self._num_fixed_bytes = sum(sizes[:-1])
        self._host = host_memory(sum(sizes), device)
        self._device = torch.zeros(sum(sizes), dtype=torch.uint8, device=device)
        self._one_each = torch.arange(max_seqs + 1, dtype=torch.int32, device=device)
        self._there = unpacked(self._device, forms)
        self._here = [view.numpy() for view in unpacked(self._host, forms)]

    def tensors(self, num_seqs: int) -> StepTensors:
        """Those of a bucket; views."""
        slots, token_ids, positions, sequences, offsets, pages = self._there
        firsts, cu_seqlens = self._one_each[:num_seqs], self._one_each[: num_seqs + 1]
        tiles = QueryTiles(sequences[:num_seqs], firsts, offsets[:num_seqs], len(pages), max_new_tokens=1)
        tokens = slice(0, num_seqs)
        return StepTensors(token_ids[tokens], positions[tokens], slots[tokens], cu_seqlens, offsets, pages, tiles)

    def fill(self, batch: StepBatch, offsets: NDArray[np.int32]) -> None:
        """Bring a batch to the device. Sequences that are only there to fill a bucket have no slot and no tile."""
        slots, token_ids, positions, sequences, page_starts, pages = self._here
        num_seqs = batch.num_seqs
        slots[:num_seqs], slots[num_seqs:] = batch.slot_mapping, -1
        token_ids[:num_seqs], positions[:num_seqs] = batch.token_ids, batch.positions
        sequences[:num_seqs], sequences[num_seqs:] = range(num_seqs), -1
        page_starts[: num_seqs + 1] = offsets
        pages = pages[: offsets[-1]]
        write_pages(batch, pages)
        num_bytes = self._num_fixed_bytes + pages.nbytes
        self._device[:num_bytes].copy_(self._host[:num_bytes], non_blocking=True)


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """A decode step in the buffers of its bucket.

    Attributes:
        bucket: sequences, with those that fill it.
        num_seqs: those that are real.
    """

    bucket: int
    num_seqs: int
    tensors: StepTensors

    def for_attention(self, spec: AttentionSpec, tuning: Tuning) -> StepTensors:  # noqa: ARG002
        """The tensors: a tile for each sequence serves heads of every shape."""
        return self.tensors

    def select(self, x: Tensor) -> Tensor:
        """Every row, those that fill the bucket too."""
        return x


class DecodeGraphs:
    """What was recorded, and the buffers it reads.

    Args:
        buckets: sequences in the steps that are recorded, ascending.
        record: how.
        max_pages: pages of a step's sequences together; a step with more is not recorded.
    """

    def __init__(
        self, device: torch.device, buckets: tuple[int, ...], record: Record, max_pages: int = MAX_PAGES
    ) -> None:
        self._device = device
        self._buckets = buckets
        self._record = record
        self._max_pages = max_pages
        self._buffers: DecodeBuffers | None = None
        self._replays: dict[int, Callable[[], Tensor]] = {}

    def step(self, batch: StepBatch) -> DecodeStep | None:
        """The batch in the buffers; None where it is no decode step, or larger than they are."""
        num_seqs, offsets = batch.num_seqs, page_offsets(batch)
        bucket = next((bucket for bucket in self._buckets if bucket >= num_seqs), None)
        if bucket is None or batch.num_tokens > num_seqs or len(batch.logits_indices) < num_seqs:
            return None
        if offsets[-1] > self._max_pages:
            return None
        if self._buffers is None:
            self._buffers = DecodeBuffers(self._buckets[-1], self._max_pages, self._device)
        self._buffers.fill(batch, offsets)
        return DecodeStep(bucket, num_seqs, self._buffers.tensors(bucket))

    def run(self, step: DecodeStep, compute: Callable[[DecodeStep], Tensor]) -> Tensor:
        """Replay the step, recorded when its bucket is first met: the rows of its sequences."""
        if step.bucket not in self._replays:
            self._replays[step.bucket] = self._record(lambda: compute(step))
        return self._replays[step.bucket]()[: step.num_seqs]

    def clear(self) -> None:
        """Forget everything that was recorded."""
        self._replays.clear()
        self._buffers = None
