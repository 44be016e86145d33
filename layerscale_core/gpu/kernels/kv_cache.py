"""Storing keys and values, rotating queries, and moving cached keys to other positions, each by itself."""

import triton
import triton.language as tl

from layerscale_core.gpu.kernels.rope import pair_order, rotate_pairs
from layerscale_core.gpu.kernels.vectors import hadamard, load_vectors, store_vectors, vector_places


@triton.jit
def _load_heads(x_ptr, vectors, wanted, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Vectors of a contiguous array [.., HEAD_DIM] as a tile [WIDTH, len(vectors)], and where its elements lie."""
    dims = tl.arange(0, WIDTH)
    places = vectors.to(tl.int64)[None, :] * HEAD_DIM + dims[:, None]
    inside = (dims < HEAD_DIM)[:, None] & wanted[None, :]
    return tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32), places, inside


@triton.jit(do_not_specialize=["num_tokens"])
def store_kernel(
    key_ptr,
    value_ptr,
    slots_ptr,
    key_pages,
    value_pages,
    rotation_ptr,
    rotation_factor,
    num_tokens,
    num_kv_heads,
    page_size,
    TOKENS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    KV_BITS: tl.constexpr,
    KEY_GROUPS: tl.constexpr,
    VALUE_GROUPS: tl.constexpr,
):
    """Write a step's keys and values [T, num_kv_heads, HEAD_DIM] into their slots."""
    tokens = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1)
    in_batch = tokens < num_tokens
    vectors = tokens * num_kv_heads + head
    dims = tl.arange(0, WIDTH)
    keys, _, _ = _load_heads(key_ptr, vectors, in_batch, HEAD_DIM, WIDTH)
    values, _, _ = _load_heads(value_ptr, vectors, in_batch, HEAD_DIM, WIDTH)
    if KV_BITS != 16:
        keys = hadamard(keys, rotation_ptr, dims, rotation_factor, False)
        values = hadamard(values, rotation_ptr, dims, rotation_factor, False)
    slots = tl.load(slots_ptr + tokens, mask=in_batch, other=-1)
    places = vector_places(slots, head, num_kv_heads, page_size)
    store_vectors(keys, dims, key_pages, places, slots >= 0, HEAD_DIM, KV_BITS, KEY_GROUPS)
    store_vectors(values, dims, value_pages, places, slots >= 0, HEAD_DIM, KV_BITS, VALUE_GROUPS)


@triton.jit(do_not_specialize=["num_vectors"])
def rotate_heads_kernel(
    x_ptr,
    out_ptr,
    rotation_ptr,
    rotation_factor,
    num_vectors,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Rotate vectors [num_vectors, HEAD_DIM] as those of a quantised cache are."""
    vectors = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    x, places, inside = _load_heads(x_ptr, vectors, vectors < num_vectors, HEAD_DIM, WIDTH)
    tl.store(out_ptr + places, hadamard(x, rotation_ptr, tl.arange(0, WIDTH), rotation_factor, False), mask=inside)


@triton.jit(do_not_specialize=["delta"])
def shift_keys_kernel(
    page_ids_ptr,
    delta,
    turns_ptr,
    key_pages,
    rotation_ptr,
    rotation_factor,
    num_kv_heads,
    page_size,
    ROTARY: tl.constexpr,
    IS_INTERLEAVED: tl.constexpr,
    TOKENS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    KV_BITS: tl.constexpr,
    KEY_GROUPS: tl.constexpr,
):
    """Rotate a page's keys of one head by ``delta`` positions; codes are decoded and rounded again."""
    page = tl.load(page_ids_ptr + tl.program_id(0)).to(tl.int64)
    offsets = tl.program_id(2) * TOKENS + tl.arange(0, TOKENS)
    in_page = offsets < page_size
    places = (page * num_kv_heads + tl.program_id(1)) * page_size + offsets
    dims = pair_order(WIDTH, ROTARY, IS_INTERLEAVED)
    if KV_BITS == 16:
        inside = (dims < HEAD_DIM)[:, None] & in_page[None, :]
        stored = tl.load(key_pages.codes + places[None, :] * HEAD_DIM + dims[:, None], mask=inside, other=0.0)
        keys = stored.to(tl.float32)
    else:
        stored = load_vectors(key_pages, places, in_page, HEAD_DIM, WIDTH, KV_BITS, KEY_GROUPS)
        keys = hadamard(tl.trans(stored), rotation_ptr, dims, rotation_factor, True)
    keys = rotate_pairs(keys, tl.full([TOKENS], delta, tl.int32), turns_ptr, 1.0, ROTARY)
    if KV_BITS != 16:
        keys = hadamard(keys, rotation_ptr, dims, rotation_factor, False)
        dims = tl.arange(0, WIDTH)
    store_vectors(keys, dims, key_pages, places, in_page, HEAD_DIM, KV_BITS, KEY_GROUPS)
