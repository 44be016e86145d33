"""``project_heads``: from activations to queries, and to keys and values in the cache, in one kernel."""

import triton
import triton.language as tl

from layerscale_core.gpu.kernels.products import norm_factor, product_tile, sum_of_squares
from layerscale_core.gpu.kernels.rope import pair_order, rotate_pairs
from layerscale_core.gpu.kernels.vectors import hadamard, store_vectors, vector_places


@triton.jit(do_not_specialize=["num_tokens", "first_head"])
def project_heads_kernel(
    x_ptr,
    norm_ptr,
    weights,
    bias_ptr,
    query_norm_ptr,
    key_norm_ptr,
    positions_ptr,
    slots_ptr,
    turns_ptr,
    rotation_ptr,
    key_pages,
    value_pages,
    query_ptr,
    partials_ptr,
    counters_ptr,
    first_head,
    num_heads,
    num_kv_heads,
    num_tokens,
    num_columns,
    page_size,
    factor,
    eps,
    magnitude,
    rotation_factor,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    ROTARY: tl.constexpr,
    IS_INTERLEAVED: tl.constexpr,
    KV_BITS: tl.constexpr,
    KEY_GROUPS: tl.constexpr,
    VALUE_GROUPS: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRETCH: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """A program projects one head: queries come first, then keys, then values."""
    head = first_head + tl.program_id(0)
    tokens = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    dims = pair_order(WIDTH, ROTARY, IS_INTERLEAVED)
    rows = tl.program_id(0) * HEAD_DIM + tl.minimum(dims, HEAD_DIM - 1)
    x, squares, is_last = product_tile(
        x_ptr, norm_ptr, weights, rows, tokens, num_tokens, num_columns, partials_ptr, counters_ptr,
        STRETCH, IS_SPLIT, BITS, GROUP, ZERO, COLUMNS, DTYPE,
    )  # fmt: skip
    if is_last:
        in_batch = tokens < num_tokens
        x *= factor
        if norm_ptr is not None:
            x *= norm_factor(squares, num_columns, eps)[None, :]
        if bias_ptr is not None:
            x += tl.load(bias_ptr + rows).to(tl.float32)[:, None]
        x = tl.where((dims < HEAD_DIM)[:, None], x, 0.0)
        if head < num_heads + num_kv_heads:
            if query_norm_ptr is not None:
                if head < num_heads:
                    weight = tl.load(query_norm_ptr + dims, mask=dims < HEAD_DIM, other=0.0)
                else:
                    weight = tl.load(key_norm_ptr + dims, mask=dims < HEAD_DIM, other=0.0)
                x *= norm_factor(sum_of_squares(x), HEAD_DIM, eps)[None, :] * weight.to(tl.float32)[:, None]
            positions = tl.load(positions_ptr + tokens, mask=in_batch, other=0)
            x = rotate_pairs(x, positions, turns_ptr, magnitude, ROTARY)
        if KV_BITS != 16:
            x = hadamard(x, rotation_ptr, dims, rotation_factor, False)
            dims = tl.arange(0, WIDTH)
        if head < num_heads:
            query_places = (tokens.to(tl.int64) * num_heads + head)[None, :] * HEAD_DIM + dims[:, None]
            tl.store(query_ptr + query_places, x, mask=(dims < HEAD_DIM)[:, None] & in_batch[None, :])
        else:
            slots = tl.load(slots_ptr + tokens, mask=in_batch, other=-1)
            kv_head = (head - num_heads) % num_kv_heads
            places = vector_places(slots, kv_head, num_kv_heads, page_size)
            if head < num_heads + num_kv_heads:
                store_vectors(x, dims, key_pages, places, slots >= 0, HEAD_DIM, KV_BITS, KEY_GROUPS)
            else:
                store_vectors(x, dims, value_pages, places, slots >= 0, HEAD_DIM, KV_BITS, VALUE_GROUPS)
