"""``embed``, ``rms_norm``, ``rope_heads`` and ``gated_activation``: what reads and writes each element once."""

import triton
import triton.language as tl

from layerscale_core.gpu.kernels.products import norm_factor
from layerscale_core.gpu.kernels.rope import pair_order, rotate_pairs
from layerscale_core.gpu.kernels.scalars import gelu_tanh, silu
from layerscale_core.gpu.kernels.weights import weight_tile


@triton.jit(do_not_specialize=["num_tokens"])
def embed_kernel(
    token_ids_ptr,
    weights,
    out_ptr,
    num_tokens,
    num_columns,
    factor,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
):
    """``out[token] = factor * table[token_ids[token]]``."""
    tokens = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    first_column = tl.program_id(1) * COLUMNS
    rows = tl.load(token_ids_ptr + tokens, mask=tokens < num_tokens, other=0)
    values = weight_tile(weights, rows, first_column, num_columns, BITS, GROUP, ZERO, COLUMNS, tl.float32) * factor
    columns = first_column + tl.arange(0, COLUMNS)
    wanted = (tokens < num_tokens)[:, None] & (columns < num_columns)[None, :]
    tl.store(out_ptr + tokens.to(tl.int64)[:, None] * num_columns + columns[None, :], values, mask=wanted)


@triton.jit
def rms_norm_kernel(
    x_ptr,
    weight_ptr,
    rows_ptr,
    residual_ptr,
    out_ptr,
    num_columns,
    eps,
    WIDTH: tl.constexpr,
):
    """``out[i] = residual[i] + norm(x[rows[i]])``, a row a program."""
    target = tl.program_id(0).to(tl.int64)
    source = target
    if rows_ptr is not None:
        source = tl.load(rows_ptr + target).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    inside = columns < num_columns
    x = tl.load(x_ptr + source * num_columns + columns, mask=inside, other=0.0).to(tl.float32)
    y = x * norm_factor(tl.sum(x * x, axis=0), num_columns, eps)
    y *= tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    places = target * num_columns + columns
    if residual_ptr is not None:
        y += tl.load(residual_ptr + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + places, y, mask=inside)


@triton.jit(do_not_specialize=["num_tokens"])
def rope_heads_kernel(
    x_ptr,
    positions_ptr,
    turns_ptr,
    out_ptr,
    num_tokens,
    num_heads,
    magnitude,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    ROTARY: tl.constexpr,
    IS_INTERLEAVED: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Rotate one head of some tokens to their positions."""
    tokens = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    dims = pair_order(WIDTH, ROTARY, IS_INTERLEAVED)
    in_batch = tokens < num_tokens
    places = (tokens.to(tl.int64) * num_heads + tl.program_id(1))[None, :] * HEAD_DIM + dims[:, None]
    inside = (dims < HEAD_DIM)[:, None] & in_batch[None, :]
    x = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    positions = tl.load(positions_ptr + tokens, mask=in_batch, other=0)
    tl.store(out_ptr + places, rotate_pairs(x, positions, turns_ptr, magnitude, ROTARY), mask=inside)


@triton.jit
def gated_activation_kernel(gate_ptr, up_ptr, out_ptr, num_elements, IS_GELU: tl.constexpr, SIZE: tl.constexpr):
    """``out = activation(gate) * up``."""
    places = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = places < num_elements
    gate = tl.load(gate_ptr + places, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + places, mask=inside, other=0.0).to(tl.float32)
    if IS_GELU:
        y = gelu_tanh(gate) * up
    else:
        y = silu(gate) * up
    tl.store(out_ptr + places, y, mask=inside)
