"""A step as the Triton kernels take it: its tensors, and attention's tiles for each shape of heads."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from layerscale_core.gpu.attention import tokens_per_tile
from layerscale_core.gpu.step import QueryTiles, StepTensors, longest_run, make_step, make_tiles
from layerscale_core.gpu.transfer import to_device
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.models import AttentionSpec
from layerscale_core.specs.executor import StepBatch


class EagerStep:
    """A step that is computed as it comes. Its batch is brought to the device when the first kernel asks for it.

    Nothing here waits for the device: kernels are launched while those before them are computed.

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
        length = tokens_per_tile(spec, longest_run(self.batch), tuning)
        if length not in self._tiles:
            self._tiles[length] = make_tiles(self.batch, self._device, length)
        return replace(self.tensors, tiles=self._tiles[length])

    def select(self, x: Tensor) -> Tensor:
        """The rows whose logits are wanted."""
        return x[to_device([self.batch.logits_indices], self._device)[0]]
