"""A step as the Triton kernels take it: its tensors, and attention's tiles for each shape of heads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from layerscale_core.gpu.attention import tokens_per_tile
from layerscale_core.gpu.step import QueryTiles, StepTensors, make_step, query_tiles
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.models import AttentionSpec
from layerscale_core.specs.executor import StepBatch


@dataclass(frozen=True, slots=True)
class EagerStep:
    """A step that is computed as it comes.

    Attributes:
        tensors: whose tiles are whole sequences, too long for attention.
        tiles: those that were needed so far, by their length.
    """

    batch: StepBatch
    tensors: StepTensors
    logits_indices: Tensor
    tiles: dict[int, QueryTiles] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: StepBatch, device: torch.device) -> EagerStep:
        """Bring a batch to the device."""
        tensors = make_step(batch, device, tokens_per_tile=batch.num_tokens)
        return cls(batch, tensors, torch.from_numpy(batch.logits_indices).to(device))

    def for_attention(self, spec: AttentionSpec, tuning: Tuning) -> StepTensors:
        """The tensors, with tiles for heads of this shape."""
        max_new_tokens = self.tensors.tiles.max_new_tokens
        length = tokens_per_tile(spec, max_new_tokens, tuning)
        if length not in self.tiles:
            parts = query_tiles(self.batch.cu_seqlens, length)
            sequences, firsts = (torch.from_numpy(part).to(self.tensors.slots.device) for part in parts)
            self.tiles[length] = QueryTiles(sequences, firsts, max_new_tokens)
        return replace(self.tensors, tiles=self.tiles[length])

    def select(self, x: Tensor) -> Tensor:
        """The rows whose logits are wanted."""
        return x[self.logits_indices]
