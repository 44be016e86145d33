"""A step's batch on the device."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from layerscale_core.models import RopeSpec
from layerscale_core.specs.executor import StepBatch


@dataclass(frozen=True, slots=True)
class TorchStep:
    """The arrays of a ``StepBatch`` as tensors of the same shapes and types.

    Attributes:
        batch: the same on the host.
        token_ids and the rest: in the batch's order.
        rotations: cosines and sines [num_tokens, 1, rotary_dim / 2] of each RoPE that the step has met.
    """

    batch: StepBatch
    rotations: dict[RopeSpec, tuple[Tensor, Tensor]]
    token_ids: Tensor
    positions: Tensor
    slot_mapping: Tensor
    cu_seqlens: Tensor
    page_tables: Tensor
    page_starts: Tensor
    page_stops: Tensor
    logits_indices: Tensor

    @classmethod
    def of(cls, batch: StepBatch, device: torch.device) -> TorchStep:
        """Bring a batch to the device."""
        arrays = (getattr(batch, array.name) for array in fields(StepBatch))
        return cls(batch, {}, *(torch.from_numpy(array).to(device) for array in arrays))
