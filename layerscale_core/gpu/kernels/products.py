"""Matrix products: tiles of weight rows by tokens, with what stands before and after a product fused in.

Columns are summed in stretches of fixed length, each from zero, and the stretches' sums are added in order. One program
may do all stretches of its tile, or a program each, of which the last to finish adds the others' up: the order of
summation, and with it every bit of the result, is the same. Weights are the left operand, so that a wider tile of
tokens does not change which matrix instruction the rows go through.
"""

import triton
import triton.language as tl
from triton.language.target_info import is_hip

from layerscale_core.gpu.kernels.scalars import order_free_sum
from layerscale_core.gpu.kernels.weights import weight_tile


@triton.jit
def activation_tile(x_ptr, norm_ptr, tokens, num_tokens, first_column, num_columns, COLUMNS: tl.constexpr):
    """Activations [COLUMNS, len(tokens)] times the norm's weight, and each token's sum of squares before that.

    The norm's other factor, one number a token, is left to the end of the product.
    """
    columns = first_column + tl.arange(0, COLUMNS)
    inside = (columns < num_columns)[:, None] & (tokens < num_tokens)[None, :]
    x = tl.load(x_ptr + tokens.to(tl.int64)[None, :] * num_columns + columns[:, None], mask=inside, other=0.0)
    squares = tl.zeros([tokens.shape[0]], tl.float32)
    if norm_ptr is not None:
        wide = x.to(tl.float32)
        squares += sum_of_squares(wide)
        x = wide * tl.load(norm_ptr + columns, mask=columns < num_columns, other=0.0).to(tl.float32)[:, None]
    return x, squares


@triton.jit
def sum_of_squares(x):
    """Over axis 0, with the same bits at every width of the tile."""
    squared = x * x
    return order_free_sum(squared, tl.max(squared, axis=0))


@triton.jit
def norm_factor(squares, num_columns, eps):
    """``1 / sqrt(mean(x²) + eps)`` of each token."""
    return 1.0 / tl.sqrt(squares / num_columns + eps)


@triton.jit
def _stretch_product(
    x_ptr,
    norm_ptr,
    weights,
    rows,
    tokens,
    num_tokens,
    num_columns,
    first_column,
    STRETCH: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    COLUMNS: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """One stretch: products [len(rows), len(tokens)] and the tokens' sums of squares."""
    acc = tl.zeros([rows.shape[0], tokens.shape[0]], tl.float32)
    squares = tl.zeros([tokens.shape[0]], tl.float32)
    for column in range(first_column, tl.minimum(first_column + STRETCH, num_columns), COLUMNS):
        tile = weight_tile(weights, rows, column, num_columns, BITS, GROUP, ZERO, COLUMNS, DTYPE)
        x, more_squares = activation_tile(x_ptr, norm_ptr, tokens, num_tokens, column, num_columns, COLUMNS)
        acc = tl.dot(tile, x.to(DTYPE), acc, input_precision="ieee")
        squares += more_squares
    return acc, squares


@triton.jit
def product_tile(
    x_ptr,
    norm_ptr,
    weights,
    rows,
    tokens,
    num_tokens,
    num_columns,
    partials_ptr,
    counters_ptr,
    STRETCH: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    COLUMNS: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """A tile's products, its tokens' sums of squares, and whether this program has them.

    Where the stretches are split over the grid's third axis, only the last program of a tile to finish has them.
    """
    num_stretches = tl.cdiv(num_columns, STRETCH)
    total = tl.zeros([rows.shape[0], tokens.shape[0]], tl.float32)
    squares = tl.zeros([tokens.shape[0]], tl.float32)
    is_last = num_stretches > 0
    first, stop = 0, num_stretches
    if IS_SPLIT:
        tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        partials_ptr += tile.to(tl.int64) * num_stretches * (rows.shape[0] + 1) * tokens.shape[0]
        first = tl.program_id(2)
        stop = first + 1
    for stretch in range(first, stop):
        acc, more_squares = _stretch_product(
            x_ptr, norm_ptr, weights, rows, tokens, num_tokens, num_columns, stretch * STRETCH,
            STRETCH, BITS, GROUP, ZERO, COLUMNS, DTYPE,
        )  # fmt: skip
        if IS_SPLIT:
            _store_partial(partials_ptr, stretch, acc, more_squares, tokens < num_tokens)
        else:
            total += acc
            squares += more_squares
    if IS_SPLIT:
        is_last = arrives_last(counters_ptr + tile, num_stretches)
        for stretch in range(tl.where(is_last, num_stretches, 0)):
            acc, more_squares = _load_partial(partials_ptr, stretch, rows.shape[0], tokens < num_tokens)
            total += acc
            squares += more_squares
    return total, squares, is_last


@triton.jit
def _partial_places(stretch, ROWS: tl.constexpr, TOKENS: tl.constexpr):
    """Where a stretch's products and sums of squares lie among those of its tile."""
    tokens = stretch * (ROWS + 1) * TOKENS + tl.arange(0, TOKENS)
    return tokens[None, :] + tl.arange(0, ROWS)[:, None] * TOKENS, tokens + ROWS * TOKENS


@triton.jit
def _store_partial(partials_ptr, stretch, acc, squares, wanted):
    places, square_places = _partial_places(stretch, acc.shape[0], acc.shape[1])
    tl.store(partials_ptr + places, acc, mask=wanted[None, :])
    tl.store(partials_ptr + square_places, squares, mask=wanted)


@triton.jit
def _load_partial(partials_ptr, stretch, ROWS: tl.constexpr, wanted):
    places, square_places = _partial_places(stretch, ROWS, wanted.shape[0])
    # Past the first cache, which may not know of other programs' stores.
    acc = tl.load(partials_ptr + places, mask=wanted[None, :], other=0.0, cache_modifier=".cg")
    squares = tl.load(partials_ptr + square_places, mask=wanted, other=0.0, cache_modifier=".cg")
    return acc, squares


@triton.jit
def arrives_last(counter_ptr, num_programs):
    """Whether this program is the last of several to come here; it then sees all that the others wrote before.

    The counter is 0 before and after, so that a recorded launch can be replayed.
    """
    # Every thread's stores come before the one thread's atomic addition. AMD's barrier does not wait for the stores of
    # other waves, and the release of one wave waits for its own alone.
    if is_hip():
        lanes = tl.arange(0, 64)
        tl.inline_asm_elementwise(
            "s_waitcnt vmcnt(0)\nv_mov_b32 $0, $1", "=v,v,~{memory}", [lanes], dtype=tl.int32, is_pure=False, pack=1
        )
    tl.debug_barrier()
    is_last = tl.atomic_add(counter_ptr, 1, sem="acq_rel", scope="gpu") == num_programs - 1
    tl.store(counter_ptr, 0, mask=is_last)
    return is_last
