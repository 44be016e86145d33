"""Decode steps recorded as graphs: one for each number of sequences up to a bucket, whatever their lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layerscale_core.gpu.step import QueryTiles, StepTensors, key_ends
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.models import AttentionSpec
from layerscale_core.specs.executor import StepBatch

Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Records what a function does on the device; the result does it again, and returns the same tensor every time."""


@dataclass(frozen=True, slots=True)
class DecodeBuffers:
    """The tensors of every decode step of up to some number of sequences and pages, filled by one copy.

    Attributes:
        tensors: views of ``device``, padded.
        host, device: int32, the same words; the host's are pinned where the device is not the host.
        views: those of ``host``, by name.
    """

    tensors: StepTensors
    host: Tensor
    device: Tensor
    views: dict[str, np.ndarray]

    @classmethod
    def allocate(cls, num_seqs: int, num_pages: int, device: torch.device) -> DecodeBuffers:
        """Zeroed buffers: a step without sequences."""
        table = (num_seqs, num_pages)
        shapes = {
            "slots": (num_seqs, 2),  # first, where 64-bit numbers are aligned
            "token_ids": (num_seqs,),
            "positions": (num_seqs,),
            "num_pages": (num_seqs,),
            "sequences": (num_seqs,),
            "page_tables": table,
            "page_starts": table,
            "page_stops": table,
            "key_ends": table,
        }
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        host = torch.zeros(sum(sizes), dtype=torch.int32, pin_memory=device.type == "cuda")
        on_device = torch.zeros(sum(sizes), dtype=torch.int32, device=device)

        def views(buffer: Tensor) -> dict[str, Tensor]:
            parts = zip(shapes.items(), torch.split(buffer, sizes), strict=True)
            return {name: part.view(shape) for (name, shape), part in parts}

        there, here = views(on_device), {name: view.numpy() for name, view in views(host).items()}
        slots = there.pop("slots").flatten().view(torch.int64)
        one_each = torch.arange(num_seqs + 1, dtype=torch.int32, device=device)
        tiles = QueryTiles(there.pop("sequences"), one_each[:-1], max_new_tokens=1)
        return cls(StepTensors(slots=slots, cu_seqlens=one_each, tiles=tiles, **there), host, on_device, here)

    def fill(self, batch: StepBatch) -> None:
        """Bring a batch to the device. Sequences that are only there to fill the bucket have no page and no slot."""
        num_seqs, num_pages = batch.page_tables.shape
        self.views["slots"].view(np.int64)[:, 0] = _padded(batch.slot_mapping, len(self.views["slots"]), -1)
        self.views["sequences"][:] = _padded(np.arange(num_seqs), len(self.views["sequences"]), -1)
        self.views["num_pages"][:] = 0
        self.views["num_pages"][:num_seqs] = (batch.page_tables >= 0).sum(axis=1)
        for name, values in (("token_ids", batch.token_ids), ("positions", batch.positions)):
            self.views[name][:num_seqs] = values
        for name in ("page_tables", "page_starts", "page_stops"):
            self.views[name][:num_seqs, :num_pages] = getattr(batch, name)
        self.views["key_ends"][:num_seqs, :num_pages] = key_ends(batch)
        self.device.copy_(self.host, non_blocking=True)


def _padded(values: np.ndarray, length: int, padding: int) -> np.ndarray:
    return np.concatenate([values, np.full(length - len(values), padding, values.dtype)])


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """A decode step in the buffers of its bucket.

    Attributes:
        key: sequences and pages of the bucket.
        num_seqs: those that are real.
    """

    key: tuple[int, int]
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
        min_pages: columns of the narrowest page tables; wider ones double, so that a growing context is recorded a few
            times in all, and a short one is not split among programs that have nothing to do.
    """

    def __init__(self, device: torch.device, buckets: tuple[int, ...], record: Record, min_pages: int = 64) -> None:
        self._device = device
        self._buckets = buckets
        self._record = record
        self._min_pages = min_pages
        self._buffers: dict[tuple[int, int], DecodeBuffers] = {}
        self._replays: dict[tuple[int, int], Callable[[], Tensor]] = {}

    def step(self, batch: StepBatch) -> DecodeStep | None:
        """The batch in its bucket's buffers; None where it is no decode step, or larger than every bucket."""
        num_seqs, num_pages = batch.page_tables.shape
        bucket = next((bucket for bucket in self._buckets if bucket >= num_seqs), None)
        if bucket is None or batch.num_tokens > num_seqs or len(batch.logits_indices) < num_seqs:
            return None
        key = (bucket, max(self._min_pages, 1 << (num_pages - 1).bit_length()))
        if key not in self._buffers:
            self._buffers[key] = DecodeBuffers.allocate(*key, self._device)
        self._buffers[key].fill(batch)
        return DecodeStep(key, num_seqs, self._buffers[key].tensors)

    def run(self, step: DecodeStep, compute: Callable[[DecodeStep], Tensor]) -> Tensor:
        """Replay the step, recorded when its bucket is first met: the rows of its sequences."""
        if step.key not in self._replays:
            self._replays[step.key] = self._record(lambda: compute(step))
        return self._replays[step.key]()[: step.num_seqs]

    def clear(self) -> None:
        """Forget everything that was recorded."""
        self._replays.clear()
        self._buffers.clear()
