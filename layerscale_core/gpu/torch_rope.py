"""Rotary position embedding on torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from layerscale_core.models import RopeSpec


def frequencies(rope: RopeSpec, device: torch.device) -> Tensor:
    """Radians per position of each pair: float64, because at position 100,000 a float32 angle is wrong by 0.004."""
    return torch.tensor(rope.inv_freq, dtype=torch.float64, device=device)


def cos_sin(positions: Tensor, inv_freq: Tensor, magnitude: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each pair's angle, times the magnitude: two float32 [num_positions, 1, rotary_dim / 2]."""
    angles = positions.to(torch.float64)[:, None, None] * inv_freq
    return (angles.cos() * magnitude).float(), (angles.sin() * magnitude).float()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor, rope: RopeSpec) -> Tensor:
    """Float32 heads [num_positions, num_heads, head_dim], each pair turned by its angle."""
    if rope.interleaved:
        first, second = slice(0, rope.rotary_dim, 2), slice(1, rope.rotary_dim, 2)
    else:
        half = rope.rotary_dim // 2
        first, second = slice(0, half), slice(half, rope.rotary_dim)
    a, b, rotated = heads[..., first], heads[..., second], heads.clone()
    rotated[..., first], rotated[..., second] = a * cos - b * sin, a * sin + b * cos
    return rotated
