"""``argmax`` and ``sample``: from logits to a token."""

import triton
import triton.language as tl

from layerscale_core.gpu.kernels.products import arrives_last


@triton.jit
def sample_kernel(
    logits_ptr,
    temperatures_ptr,
    seeds_ptr,
    found_ptr,
    partials_ptr,
    counters_ptr,
    vocab_size,
    IS_RANDOM: tl.constexpr,
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The token of the largest ``logit / temperature + noise``; of equals the first.

    With Gumbel noise that is a draw from the softmax (Gumbel, 1954). Where the temperature is 0 there is none. A
    program looks at SIZE logits of a row, and the last of a row at what all have found.
    """
    row = tl.program_id(0)
    ids = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = ids < vocab_size
    logits = tl.load(logits_ptr + row.to(tl.int64) * vocab_size + ids, mask=inside, other=0.0).to(tl.float32)
    # Infinite or NaN times 0 is NaN, and every comparison with NaN is false.
    poison = tl.sum(logits * 0.0, axis=0)
    if IS_RANDOM:
        temperature = tl.load(temperatures_ptr + row)
        uniform = tl.maximum(tl.rand(tl.load(seeds_ptr + row), ids), 1e-10)
        noise = -tl.log(-tl.log(tl.minimum(uniform, 1.0 - 6e-8)))
        logits = tl.where(temperature > 0, logits / tl.where(temperature > 0, temperature, 1.0) + noise, logits)
    logits = tl.where(inside, logits, float("-inf"))
    best = tl.max(logits, axis=0)
    best_id = tl.min(tl.where(logits == best, ids, vocab_size - 1), axis=0)

    num_parts = tl.num_programs(1)
    part_ptr = partials_ptr + (row * num_parts + tl.program_id(1)) * 3
    tl.store(part_ptr, best)
    tl.store(part_ptr + 1, best_id.to(tl.float32, bitcast=True))
    tl.store(part_ptr + 2, poison)
    if arrives_last(counters_ptr + row, num_parts):
        parts = tl.arange(0, PARTS)
        part_ptrs, wanted = partials_ptr + (row * num_parts + parts) * 3, parts < num_parts
        bests = tl.load(part_ptrs, mask=wanted, other=float("-inf"), cache_modifier=".cg")
        best_ids = tl.load(part_ptrs + 1, mask=wanted, other=0.0, cache_modifier=".cg").to(tl.int32, bitcast=True)
        poisons = tl.load(part_ptrs + 2, mask=wanted, other=0.0, cache_modifier=".cg")
        is_largest = wanted & (bests == tl.max(bests, axis=0))
        tl.store(found_ptr + row * 2, tl.min(tl.where(is_largest, best_ids, vocab_size - 1), axis=0))
        tl.store(found_ptr + row * 2 + 1, (tl.sum(poisons, axis=0) == 0.0).to(tl.int32))
