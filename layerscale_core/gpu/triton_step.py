"""A step as the Triton kernels take it: its tensors, and attention's tiles for each shape of heads."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from layerscale_core.gpu.attention import tokens_per_tile
from layerscale_core.gpu.step import QueryTiles, StepTensors, make_step, query_tiles
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.models import AttentionSpec
from layerscale_core.specs.executor import StepBatch


class EagerStep:
    """A step that is computed as it comes. Its batch is brought to the device when the first kernel asks for it.

    Attributes:
        batch: on the host.
    """

    def __init__(self, batch: StepBatch, device: torch.device) -> None:
        self.batch = batch
        self._device = device
        self._tiles: dict[int, QueryTiles] = {}

    @cached_property
    def tensors(self) -> StepTensors:
        """The batch on the device; its tiles are whole sequences, too long for attention."""
        return make_step(self.batch, self._device, tokens_per_tile=self.batch.num_tokens)

    def for_attention(self, spec: AttentionSpec, tuning: Tuning) -> StepTensors:
        """The tensors, with tiles for heads of this shape."""
        max_new_tokens = self.tensors.tiles.max_new_tokens
        length = tokens_per_tile(spec, max_new_tokens, tuning)
        if length not in self._tiles:
            parts = query_tiles(self.batch.cu_seqlens, length)
            sequences, firsts = (torch.from_numpy(part).to(self._device) for part in parts)
            self._tiles[length] = QueryTiles(sequences, firsts, max_new_tokens)
        return replace(self.tensors, tiles=self._tiles[length])

    def select(self, x: Tensor) -> Tensor:
        """The rows whose logits are wanted."""
        return x[torch.from_numpy(self.batch.logits_indices).to(self._device)]
