"""Paged attention over ragged batches: a tile of queries of one sequence that share a key-value head.

A sequence's pages are read in partitions of a fixed number of places, each with a softmax of its own
(arXiv:2205.14135), and the partitions are merged in order. One program may walk through all of them, or several take
turns, of which the last to finish merges (flash-decoding): the result is the same. How many there are to share a
context does not depend on its length, which is read from the device's memory, so that a recorded launch serves all.
Keys are the left operand of the products, so that a wider tile of queries does not change which matrix instruction they
go through.
"""

import triton
import triton.language as tl

from layerscale_core.gpu.kernels.products import arrives_last
from layerscale_core.gpu.kernels.scalars import order_free_sum, softcapped
from layerscale_core.gpu.kernels.vectors import hadamard, load_vectors


@triton.jit
def attention_kernel(
    query_ptr,
    key_pages,
    value_pages,
    rotation_ptr,
    tile_sequences_ptr,
    tile_firsts_ptr,
    tile_page_offsets_ptr,
    cu_seqlens_ptr,
    page_offsets_ptr,
    pages_ptr,
    out_ptr,
    partials_ptr,
    counters_ptr,
    num_kv_heads,
    page_size,
    scale,
    softcap,
    rotation_factor,
    window,
    chunk,
    HAS_SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    KV_BITS: tl.constexpr,
    KEY_GROUPS: tl.constexpr,
    VALUE_GROUPS: tl.constexpr,
    HEADS: tl.constexpr,
    TILE_TOKENS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PARTITION: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """``out[token, head] = softmax(softcap(scale * query · keys)) · values``, over the keys that the token sees."""
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    sequence = tl.load(tile_sequences_ptr + tile)
    if sequence >= 0:
        first_page = tl.load(page_offsets_ptr + sequence)
        num_pages = tl.load(page_offsets_ptr + sequence + 1) - first_page
        pages_ptr += first_page.to(tl.int64) * 4
        num_keys = tl.load(pages_ptr + (num_pages - 1) * 4 + 3)
        seq_stop = tl.load(cu_seqlens_ptr + sequence + 1)
        first = tl.load(tile_firsts_ptr + tile)
        last = tl.minimum(first + TILE_TOKENS, seq_stop) - 1
        # A column is a query: HEADS of them for each token.
        column = tl.arange(0, QUERIES)
        tokens = first + column // HEADS
        in_tile = (column < TILE_TOKENS * HEADS) & (tokens < seq_stop)
        dims = tl.arange(0, WIDTH)
        query_heads = tokens.to(tl.int64) * (num_kv_heads * HEADS) + kv_head * HEADS + column % HEADS
        places = query_heads[None, :] * HEAD_DIM + dims[:, None]
        inside = (dims < HEAD_DIM)[:, None] & in_tile[None, :]
        query = tl.load(query_ptr + places, mask=inside, other=0.0).to(DTYPE)
        seen_stops = tl.where(in_tile, num_keys - (seq_stop - 1 - tokens), 0)
        # Every key before or after takes a place at least, so that no key seen lies outside these places.
        first_place = tl.maximum(_first_seen(num_keys - (seq_stop - 1 - first), window, chunk), 0) // KEYS * KEYS
        stop_place = num_pages * page_size - (seq_stop - 1 - last)
        first_partition = first_place // PARTITION
        num_partitions = tl.cdiv(stop_place, PARTITION) - first_partition

        total_max = tl.full([QUERIES], float("-inf"), tl.float32)
        total_sum = tl.zeros([QUERIES], tl.float32)
        total = tl.zeros([WIDTH, QUERIES], tl.float32)
        is_last = num_partitions > 0
        first_part, num_programs = 0, 1
        if IS_SPLIT:
            part_places: tl.constexpr = TILE_TOKENS * HEADS * (WIDTH + 2)
            # Where partials of the tile begin: those before it have no more, each rounded up.
            first_partial = tl.load(tile_page_offsets_ptr + tile).to(tl.int64) * page_size // PARTITION + tile
            partials_ptr += (first_partial * num_kv_heads + kv_head) * part_places
            first_part = tl.program_id(2)
            num_programs = tl.num_programs(2)
        for part in range(first_part, num_partitions, num_programs):
            begin = (first_partition + part) * PARTITION
            part_max, part_sum, acc = _attend(
                query, _first_seen(seen_stops, window, chunk), seen_stops, tl.maximum(begin, first_place),
                tl.minimum(begin + PARTITION, stop_place), key_pages, value_pages, kv_head, num_kv_heads,
                page_size, num_pages, pages_ptr, scale, softcap,
                HAS_SOFTCAP, HEAD_DIM, WIDTH, KV_BITS, KEY_GROUPS, VALUE_GROUPS, KEYS, DTYPE,
            )  # fmt: skip
            if IS_SPLIT:
                part_ptr = partials_ptr + part * num_kv_heads * part_places
                _store_partial(part_ptr, part_max, part_sum, acc, TILE_TOKENS * HEADS)
            else:
                total_max, total_sum, total = _merge(total_max, total_sum, total, part_max, part_sum, acc)
        if IS_SPLIT:
            is_last = first_part < num_partitions
            if is_last:
                counter_ptr = counters_ptr + tile * num_kv_heads + kv_head
                is_last = arrives_last(counter_ptr, tl.minimum(num_programs, num_partitions))
            for part in range(tl.where(is_last, num_partitions, 0)):
                part_ptr = partials_ptr + part * num_kv_heads * part_places
                part_max, part_sum, acc = _load_partial(part_ptr, WIDTH, QUERIES, TILE_TOKENS * HEADS)
                total_max, total_sum, total = _merge(total_max, total_sum, total, part_max, part_sum, acc)
        if is_last:
            attended = total / tl.where(total_sum == 0, 1.0, total_sum)[None, :]
            if KV_BITS != 16:
                attended = hadamard(attended, rotation_ptr, dims, rotation_factor, True)
            tl.store(out_ptr + places, attended, mask=inside)


@triton.jit
def _first_seen(seen_stops, window, chunk):
    """The first key that is seen by a token whose own is the last before ``seen_stops``; may be negative."""
    return tl.maximum(seen_stops - window, tl.maximum(seen_stops - 1, 0) // chunk * chunk)


@triton.jit
def _attend(
    query,
    seen_begins,
    seen_stops,
    first_place,
    stop_place,
    key_pages,
    value_pages,
    kv_head,
    num_kv_heads,
    page_size,
    num_pages,
    pages_ptr,
    scale,
    softcap,
    HAS_SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    KV_BITS: tl.constexpr,
    KEY_GROUPS: tl.constexpr,
    VALUE_GROUPS: tl.constexpr,
    KEYS: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """One partition: maximum of the scores, sum of their exponentials [queries], sum of values [WIDTH, queries]."""
    QUERIES: tl.constexpr = query.shape[1]
    running_max = tl.full([QUERIES], float("-inf"), tl.float32)
    running_sum = tl.zeros([QUERIES], tl.float32)
    acc = tl.zeros([WIDTH, QUERIES], tl.float32)
    for place in range(first_place, stop_place, KEYS):
        places = place + tl.arange(0, KEYS)
        in_table = places // page_size < num_pages
        page_ptrs = pages_ptr + places // page_size * 4
        offsets = places % page_size
        page_ids = tl.load(page_ptrs, mask=in_table, other=0).to(tl.int64)
        stops = tl.load(page_ptrs + 2, mask=in_table, other=0)
        valid = (offsets >= tl.load(page_ptrs + 1, mask=in_table, other=0)) & (offsets < stops)
        # The how-manieth key of the sequence stands at each place: windows and chunks count keys.
        ordinals = tl.load(page_ptrs + 3, mask=in_table, other=0) - stops + offsets
        vectors = (page_ids * num_kv_heads + kv_head) * page_size + offsets
        keys = load_vectors(key_pages, vectors, valid, HEAD_DIM, WIDTH, KV_BITS, KEY_GROUPS).to(DTYPE)
        scores = tl.dot(keys, query, input_precision="ieee") * scale
        if HAS_SOFTCAP:
            scores = softcapped(scores, softcap)
        seen = (ordinals[:, None] < seen_stops[None, :]) & (ordinals[:, None] >= seen_begins[None, :])
        scores = tl.where(valid[:, None] & seen, scores, float("-inf"))
        new_max = tl.maximum(running_max, tl.max(scores, axis=0))
        base = tl.where(new_max == float("-inf"), 0.0, new_max)
        weights = tl.exp(scores - base[None, :])
        shrink = tl.exp(running_max - base)
        running_sum = running_sum * shrink + order_free_sum(weights, tl.full([QUERIES], 1.0, tl.float32))
        values = load_vectors(value_pages, vectors, valid, HEAD_DIM, WIDTH, KV_BITS, VALUE_GROUPS).to(DTYPE)
        acc = tl.dot(tl.trans(values), weights.to(DTYPE), acc * shrink[None, :], input_precision="ieee")
        running_max = new_max
    return running_max, running_sum, acc


@triton.jit
def _merge(total_max, total_sum, total, part_max, part_sum, part):
    """Both as if their scores had been met in one softmax."""
    new_max = tl.maximum(total_max, part_max)
    base = tl.where(new_max == float("-inf"), 0.0, new_max)
    old, new = tl.exp(total_max - base), tl.exp(part_max - base)
    return new_max, total_sum * old + part_sum * new, total * old[None, :] + part * new[None, :]


@triton.jit
def _partial_places(WIDTH: tl.constexpr, QUERIES: tl.constexpr):
    """Where a partition's sums of values lie, and behind them each query's maximum, and its sum after that."""
    columns = tl.arange(0, QUERIES) * (WIDTH + 2)
    return columns[None, :] + tl.arange(0, WIDTH)[:, None], columns + WIDTH


@triton.jit
def _store_partial(part_ptr, part_max, part_sum, acc, num_queries):
    wanted = tl.arange(0, acc.shape[1]) < num_queries
    places, max_places = _partial_places(acc.shape[0], acc.shape[1])
    tl.store(part_ptr + places, acc, mask=wanted[None, :])
    tl.store(part_ptr + max_places, part_max, mask=wanted)
    tl.store(part_ptr + max_places + 1, part_sum, mask=wanted)


@triton.jit
def _load_partial(part_ptr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, num_queries):
    wanted = tl.arange(0, QUERIES) < num_queries
    places, max_places = _partial_places(WIDTH, QUERIES)
    # Past the first cache, which may not know of other programs' stores.
    acc = tl.load(part_ptr + places, mask=wanted[None, :], other=0.0, cache_modifier=".cg")
    part_max = tl.load(part_ptr + max_places, mask=wanted, other=0.0, cache_modifier=".cg")
    part_sum = tl.load(part_ptr + max_places + 1, mask=wanted, other=0.0, cache_modifier=".cg")
    return part_max, part_sum, acc
