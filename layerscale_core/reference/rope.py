"""Rotary position embedding: each pair of a head turned by its position times its frequency (arXiv:2104.09864)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscale_core.models import RopeSpec
from layerscale_core.reference.arrays import Floats


def rotate(heads: Floats, positions: NDArray[np.integer], rope: RopeSpec, magnitude: float) -> Floats:
    """Heads [.., head_dim], each pair turned by its angle; positions broadcast over the leading axes."""
    # float64, because at position 100,000 a float32 angle is already wrong by 0.004.
    angles = positions[..., None].astype(np.float64) * np.asarray(rope.inv_freq)
    cos = (np.cos(angles) * magnitude).astype(np.float32)
    sin = (np.sin(angles) * magnitude).astype(np.float32)
    rotated = heads.copy()
    first, second = _pairs(rope)
    a, b = heads[..., first], heads[..., second]
    rotated[..., first], rotated[..., second] = a * cos - b * sin, a * sin + b * cos
    return rotated


def _pairs(rope: RopeSpec) -> tuple[slice, slice]:
    """Where the first and the second element of every rotated pair lie in a head."""
    if rope.interleaved:
        return slice(0, rope.rotary_dim, 2), slice(1, rope.rotary_dim, 2)
    half = rope.rotary_dim // 2
    return slice(0, half), slice(half, rope.rotary_dim)
