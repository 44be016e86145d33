"""``linear`` and ``gate_up``: a matrix product with norm, bias, activation, cap and residual around it."""

import triton
import triton.language as tl

from layerscale_core.gpu.kernels.products import activation_tile, norm_factor, product_tile
from layerscale_core.gpu.kernels.scalars import gelu_tanh, silu, softcapped
from layerscale_core.gpu.kernels.weights import weight_tile


@triton.jit(do_not_specialize=["num_tokens"])
def linear_kernel(
    x_ptr,
    norm_ptr,
    weights,
    bias_ptr,
    residual_ptr,
    out_ptr,
    partials_ptr,
    counters_ptr,
    num_tokens,
    num_rows,
    num_columns,
    factor,
    eps,
    softcap,
    HAS_SOFTCAP: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRETCH: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """``out = residual + softcap(norm(x) @ matrix.T + bias)``."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tokens = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    inner_rows = tl.minimum(rows, num_rows - 1)
    y, squares, is_last = product_tile(
        x_ptr, norm_ptr, weights, inner_rows, tokens, num_tokens, num_columns, partials_ptr, counters_ptr,
        STRETCH, IS_SPLIT, BITS, GROUP, ZERO, COLUMNS, DTYPE,
    )  # fmt: skip
    if is_last:
        y *= factor
        if norm_ptr is not None:
            y *= norm_factor(squares, num_columns, eps)[None, :]
        if bias_ptr is not None:
            y += tl.load(bias_ptr + inner_rows).to(tl.float32)[:, None]
        if HAS_SOFTCAP:
            y = softcapped(y, softcap)
        places = tokens.to(tl.int64)[None, :] * num_rows + rows[:, None]
        wanted = (rows < num_rows)[:, None] & (tokens < num_tokens)[None, :]
        if residual_ptr is not None:
            y += tl.load(residual_ptr + places, mask=wanted, other=0.0).to(tl.float32)
        tl.store(out_ptr + places, y, mask=wanted)


@triton.jit(do_not_specialize=["num_tokens"])
def gate_up_kernel(
    x_ptr,
    norm_ptr,
    gate_weights,
    up_weights,
    out_ptr,
    num_tokens,
    num_rows,
    num_columns,
    gate_factor,
    up_factor,
    eps,
    IS_GELU: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """``out = activation(norm(x) @ gate.T) * (norm(x) @ up.T)``."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tokens = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    inner_rows = tl.minimum(rows, num_rows - 1)
    gate = tl.zeros([ROWS, TOKENS], tl.float32)
    up = tl.zeros([ROWS, TOKENS], tl.float32)
    squares = tl.zeros([TOKENS], tl.float32)
    for column in range(0, num_columns, COLUMNS):
        x, more_squares = activation_tile(x_ptr, norm_ptr, tokens, num_tokens, column, num_columns, COLUMNS)
        x = x.to(DTYPE)
        gate_tile = weight_tile(gate_weights, inner_rows, column, num_columns, BITS, GROUP, ZERO, COLUMNS, DTYPE)
        gate = tl.dot(gate_tile, x, gate, input_precision="ieee")
        up_tile = weight_tile(up_weights, inner_rows, column, num_columns, BITS, GROUP, ZERO, COLUMNS, DTYPE)
        up = tl.dot(up_tile, x, up, input_precision="ieee")
        squares += more_squares
    gate *= gate_factor
    up *= up_factor
    if norm_ptr is not None:
        norm = norm_factor(squares, num_columns, eps)[None, :]
        gate *= norm
        up *= norm
    if IS_GELU:
        y = gelu_tanh(gate) * up
    else:
        y = silu(gate) * up
    places = tokens.to(tl.int64)[None, :] * num_rows + rows[:, None]
    tl.store(out_ptr + places, y, mask=(rows < num_rows)[:, None] & (tokens < num_tokens)[None, :])
