"""Rotary position embedding as kernels take it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscale_core.models import RopeSpec


@dataclass(frozen=True, slots=True)
class DeviceRope:
    """A layer's rotation.

    Attributes:
        turns: float64 [rotary_dim / 2], whole turns per position of each pair.
        magnitude, interleaved: as in ``RopeSpec``.
    """

    turns: Tensor
    magnitude: float
    interleaved: bool

    @property
    def rotary_dim(self) -> int:
        """Leading elements of a head that are rotated."""
        return 2 * self.turns.shape[0]


def device_rope(rope: RopeSpec, device: torch.device | str) -> DeviceRope:
    """Bring a layer's frequencies to a device."""
    turns = torch.tensor(rope.inv_freq, dtype=torch.float64) / (2 * math.pi)
    return DeviceRope(turns.to(device), rope.magnitude, rope.interleaved)
