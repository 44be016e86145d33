"""Rotary position embedding of a tile of one head: [width, tokens], its rows in the order of the rotated pairs.

``pair_order`` names the dimension that each row of a tile holds: both elements of a pair are neighbours, and dimensions
that are not rotated follow. Tiles are read and written through it, so that no data moves for it.
"""

import triton
import triton.language as tl


@triton.jit
def pair_order(WIDTH: tl.constexpr, ROTARY: tl.constexpr, IS_INTERLEAVED: tl.constexpr):
    """[WIDTH] dimensions, in the order of the rotated pairs."""
    rows = tl.arange(0, WIDTH)
    if IS_INTERLEAVED:
        return rows
    else:
        return tl.where(rows < ROTARY, rows // 2 + (rows % 2) * (ROTARY // 2), rows)


@triton.jit
def rotate_pairs(x, positions, turns_ptr, magnitude, ROTARY: tl.constexpr):
    """Turn each pair of x [WIDTH, tokens], float32, by its angle at the tokens' positions.

    Angles are reduced to one turn in float64: at position 100,000 a float32 angle is already wrong by 0.004.
    """
    HALF: tl.constexpr = x.shape[0] // 2
    TOKENS: tl.constexpr = x.shape[1]
    pairs = tl.arange(0, HALF)
    rotated = pairs < ROTARY // 2
    turns = tl.load(turns_ptr + pairs, mask=rotated, other=0.0)[:, None] * positions.to(tl.float64)[None, :]
    angles = ((turns - tl.floor(turns)) * 6.283185307179586).to(tl.float32)
    sizes = tl.where(rotated, magnitude, 1.0)[:, None]
    cos, sin = tl.cos(angles) * sizes, tl.sin(angles) * sizes
    first, second = tl.split(tl.permute(tl.reshape(x, [HALF, 2, TOKENS]), [0, 2, 1]))
    turned = tl.join(first * cos - second * sin, first * sin + second * cos)
    return tl.reshape(tl.permute(turned, [0, 2, 1]), [2 * HALF, TOKENS])
