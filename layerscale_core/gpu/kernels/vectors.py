"""Keys and values as the cache holds them: floats, or codes of the rotated vector (see ``reference.kv_codecs``).

Tiles of one head are float32 [width, tokens], width being the head's, up to a power of two. A vector's place is its
number in a cache of [pages, kv_heads, page_size] vectors.
"""

import triton
import triton.language as tl

from layerscale_core.gpu.kernels.scalars import nearest_int
from layerscale_core.gpu.kernels.weights import small_ints_to_floats


@triton.jit
def hadamard(x, rotation_ptr, dims, factor, IS_INVERSE: tl.constexpr):
    """Rotate a tile, or rotate it back; ``dims`` are those of the rows that are not rotated.

    For heads wider than 128 the matrix is taken in parts: as a whole it is 128 KiB, and most devices have less shared
    memory for a program.
    """
    WIDTH: tl.constexpr = x.shape[0]
    rotated = tl.arange(0, WIDTH)
    if IS_INVERSE:
        rows, columns = dims[:, None], rotated[:, None]
    else:
        rows, columns = rotated[:, None], dims[:, None]
    total = tl.zeros(x.shape, tl.float32)
    if WIDTH <= 128:
        total = _add_turned(total, x, rotation_ptr, rows, columns, WIDTH, IS_INVERSE)
    else:
        first_rows, last_rows = _halves(rows)
        first, last = _halves(total)
        first = _add_in_parts(first, x, rotation_ptr, first_rows, columns, WIDTH, IS_INVERSE)
        last = _add_in_parts(last, x, rotation_ptr, last_rows, columns, WIDTH, IS_INVERSE)
        total = tl.reshape(tl.permute(tl.join(first, last), [2, 0, 1]), x.shape)
    return total * factor


@triton.jit
def _halves(x):
    """The first and the last rows of a tile."""
    return tl.split(tl.permute(tl.reshape(x, [2, x.shape[0] // 2, x.shape[1]]), [1, 2, 0]))


@triton.jit
def _add_in_parts(total, x, rotation_ptr, rows, columns, WIDTH: tl.constexpr, IS_INVERSE: tl.constexpr):
    """``_add_turned``, with as many rows of x at a time as leave registers for the rest."""
    if x.shape[0] <= 64:
        return _add_turned(total, x, rotation_ptr, rows, columns, WIDTH, IS_INVERSE)
    else:
        first_x, last_x = _halves(x)
        first_columns, last_columns = _halves(columns)
        total = _add_in_parts(total, first_x, rotation_ptr, rows, first_columns, WIDTH, IS_INVERSE)
        return _add_in_parts(total, last_x, rotation_ptr, rows, last_columns, WIDTH, IS_INVERSE)


@triton.jit
def _add_turned(total, x, rotation_ptr, rows, columns, WIDTH: tl.constexpr, IS_INVERSE: tl.constexpr):
    """``total`` and a part of the rotation times x: the sum of two float16, 22 bits together, by 1, -1 and 0."""
    if IS_INVERSE:
        matrix = tl.load(rotation_ptr + rows * WIDTH + tl.trans(columns))
    else:
        matrix = tl.load(rotation_ptr + tl.trans(columns) * WIDTH + rows)
    high = x.to(tl.float16)
    low = (x - high.to(tl.float32)).to(tl.float16)
    return tl.dot(matrix, low, tl.dot(matrix, high, total))


@triton.jit
def vector_places(slots, head, num_kv_heads, page_size):
    """Where one head's vectors of these slots lie."""
    return ((slots // page_size) * num_kv_heads + head) * page_size + slots % page_size


@triton.jit
def store_vectors(x, dims, pages, places, wanted, HEAD_DIM: tl.constexpr, BITS: tl.constexpr, NUM_GROUPS: tl.constexpr):
    """Write a tile of vectors; for codes it was rotated before and its rows are in natural order."""
    if BITS == 16:
        inside = (dims < HEAD_DIM)[:, None] & wanted[None, :]
        tl.store(pages.codes + places[None, :] * HEAD_DIM + dims[:, None], x, mask=inside)
    elif BITS == 8:
        _store_int8(x, pages, places, wanted, HEAD_DIM)
    else:
        _store_int4(x, pages, places, wanted, HEAD_DIM, NUM_GROUPS)


@triton.jit
def _codes(x, minima, scales):
    """Nearest codes by the scales as stored. What is not finite has a scale that is not, and code 0."""
    usable = tl.where(scales > 0, scales, float("inf")).to(tl.float32)
    codes = nearest_int((x - minima) / usable)
    return tl.where(codes == codes, codes, 0.0)  # noqa: PLR0124 (NaN alone differs from itself)


@triton.jit
def _poison(x, AXIS: tl.constexpr):
    """0, or NaN where anything is not finite: a maximum alone would lose it."""
    is_lost = tl.max((x * 0.0 != 0.0).to(tl.int32), axis=AXIS)
    return tl.where(is_lost > 0, float("nan"), 0.0)


@triton.jit
def _store_int8(x, pages, places, wanted, HEAD_DIM: tl.constexpr):
    dims = tl.arange(0, x.shape[0])
    scales = (tl.max(tl.abs(x), axis=0) / 127.0 + _poison(x, 0)).to(tl.float16)
    codes = _codes(x, 0.0, scales[None, :])
    codes = tl.minimum(tl.maximum(codes, -127.0), 127.0).to(tl.int8)
    inside = (dims < HEAD_DIM)[:, None] & wanted[None, :]
    BYTES: tl.constexpr = (HEAD_DIM + 3) // 4 * 4
    tl.store(pages.codes + places[None, :] * BYTES + dims[:, None], codes.to(tl.uint8, bitcast=True), mask=inside)
    tl.store(pages.scales + places, scales, mask=wanted)


@triton.jit
def _store_int4(x, pages, places, wanted, HEAD_DIM: tl.constexpr, NUM_GROUPS: tl.constexpr):
    WIDTH: tl.constexpr = x.shape[0]
    TOKENS: tl.constexpr = x.shape[1]
    # A head is one group, or groups of a power of two.
    SIZE: tl.constexpr = WIDTH if NUM_GROUPS == 1 else HEAD_DIM // NUM_GROUPS
    GROUPS: tl.constexpr = WIDTH // SIZE
    inside = (tl.arange(0, WIDTH) < HEAD_DIM)[:, None]
    groups = tl.reshape(x, [GROUPS, SIZE, TOKENS])
    valid = tl.reshape(tl.broadcast_to(inside, [WIDTH, TOKENS]), [GROUPS, SIZE, TOKENS])
    minima = (tl.min(tl.where(valid, groups, float("inf")), axis=1) + _poison(groups, 1)).to(tl.float16)
    maxima = tl.max(tl.where(valid, groups, float("-inf")), axis=1)
    scales = ((maxima - minima.to(tl.float32)) / 15.0).to(tl.float16)
    codes = _codes(groups, minima.to(tl.float32)[:, None, :], scales[:, None, :])
    codes = tl.minimum(tl.maximum(codes, 0.0), 15.0).to(tl.uint8)
    codes = tl.where(inside, tl.reshape(codes, [WIDTH, TOKENS]), 0)
    low, high = tl.split(tl.permute(tl.reshape(codes, [WIDTH // 2, 2, TOKENS]), [0, 2, 1]))
    BYTES: tl.constexpr = (HEAD_DIM + 7) // 8 * 4
    byte = tl.arange(0, WIDTH // 2)
    in_code = (byte < BYTES)[:, None] & wanted[None, :]
    tl.store(pages.codes + places[None, :] * BYTES + byte[:, None], low | (high << 4), mask=in_code)
    group = tl.arange(0, GROUPS)
    in_group = (group < NUM_GROUPS)[:, None] & wanted[None, :]
    group_places = places[None, :] * NUM_GROUPS + group[:, None]
    tl.store(pages.scales + group_places, scales, mask=in_group)
    tl.store(pages.mins + group_places, minima, mask=in_group)


@triton.jit
def load_vectors(
    pages,
    places,
    wanted,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
    NUM_GROUPS: tl.constexpr,
):
    """Vectors [len(places), WIDTH] as they were stored, codes times scale; 0 where not wanted and past the head."""
    dims = tl.arange(0, WIDTH)
    inside = wanted[:, None] & (dims < HEAD_DIM)[None, :]
    if BITS == 16:
        return tl.load(pages.codes + places[:, None] * HEAD_DIM + dims[None, :], mask=inside, other=0.0)
    elif BITS == 8:
        BYTES: tl.constexpr = (HEAD_DIM + 3) // 4 * 4
        codes = tl.load(pages.codes + places[:, None] * BYTES + dims[None, :], mask=inside, other=0)
        scales = tl.load(pages.scales + places, mask=wanted, other=0.0).to(tl.float32)
        return codes.to(tl.int8, bitcast=True).to(tl.float32) * scales[:, None]
    else:
        return _load_int4(pages, places, wanted, HEAD_DIM, WIDTH, NUM_GROUPS)


@triton.jit
def _load_int4(pages, places, wanted, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, NUM_GROUPS: tl.constexpr):
    VECTORS: tl.constexpr = places.shape[0]
    SIZE: tl.constexpr = WIDTH if NUM_GROUPS == 1 else HEAD_DIM // NUM_GROUPS
    GROUPS: tl.constexpr = WIDTH // SIZE
    BYTES: tl.constexpr = (HEAD_DIM + 7) // 8 * 4
    byte = tl.arange(0, WIDTH // 2)
    in_code = wanted[:, None] & (byte < BYTES)[None, :]
    stored = tl.load(pages.codes + places[:, None] * BYTES + byte[None, :], mask=in_code, other=0)
    codes = tl.reshape(tl.interleave(stored & 15, stored >> 4), [VECTORS, GROUPS, SIZE])
    group = tl.arange(0, GROUPS)
    in_group = wanted[:, None] & (group < NUM_GROUPS)[None, :]
    group_places = places[:, None] * NUM_GROUPS + group[None, :]
    scales = tl.load(pages.scales + group_places, mask=in_group, other=0.0).to(tl.float32)
    minima = tl.load(pages.mins + group_places, mask=in_group, other=0.0).to(tl.float32)
    values = small_ints_to_floats(codes, 0) * scales[:, :, None] + minima[:, :, None]
    return tl.where((tl.arange(0, WIDTH) < HEAD_DIM)[None, :], tl.reshape(values, [VECTORS, WIDTH]), 0.0)
