"""Reading weights: a tile of a matrix in any of its layouts, as floats."""

import triton
import triton.language as tl


@triton.jit
def weight_tile(
    weights,
    rows,
    first_column,
    num_columns,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    COLUMNS: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """[len(rows), COLUMNS] from ``first_column`` on, a multiple of the group; 0 past the last column.

    ``scale * (code - zero) + minimum``, without the matrix's factor. Rows must lie in the matrix.
    """
    long_rows = rows.to(tl.int64)
    if BITS == 16:
        columns = first_column + tl.arange(0, COLUMNS)
        places = long_rows[:, None] * num_columns + columns[None, :]
        tile = tl.load(weights.codes + places, mask=(columns < num_columns)[None, :], other=0.0)
        return tile.to(DTYPE)
    else:
        groups = first_column // GROUP + tl.arange(0, COLUMNS // GROUP)
        inside = (groups * GROUP < num_columns)[None, :]
        group_places = long_rows[:, None] * (num_columns // GROUP) + groups[None, :]
        codes = _codes(weights.codes, group_places, inside, BITS, GROUP)
        if weights.codebook is not None:
            values = tl.load(weights.codebook + codes)
        else:
            values = small_ints_to_floats(codes, ZERO)
        # Past the last column scale and minimum are 0, and so is the weight.
        tile = values * tl.load(weights.scales + group_places, mask=inside, other=0.0).to(tl.float32)[:, :, None]
        if weights.mins is not None:
            tile += tl.load(weights.mins + group_places, mask=inside, other=0.0).to(tl.float32)[:, :, None]
        return tl.reshape(tile.to(DTYPE), [rows.shape[0], COLUMNS])


@triton.jit
def _codes(codes_ptr, group_places, inside, BITS: tl.constexpr, GROUP: tl.constexpr):
    """Codes [rows, groups, GROUP] as uint8. Two 4-bit codes share a byte, the first in the low half."""
    BYTES: tl.constexpr = GROUP * BITS // 8
    places = group_places[:, :, None] * BYTES + tl.arange(0, BYTES)[None, None, :]
    stored = tl.load(codes_ptr + places, mask=inside[:, :, None], other=0)
    if BITS == 4:
        return tl.interleave(stored & 15, stored >> 4)
    else:
        return stored


@triton.jit
def small_ints_to_floats(codes, ZERO: tl.constexpr):
    """``codes - ZERO`` as float32, for codes from 0 to 2^23.

    2^23 has its integers in the last bits of its mantissa: an OR and a subtraction, where the conversion
    instruction runs at a quarter of the rate.
    """
    return (codes.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True) - (8388608.0 + ZERO)
