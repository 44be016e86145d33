"""``argmax`` and ``sample``: from logits to a token, a row a program."""

import triton
import triton.language as tl


@triton.jit
def sample_kernel(
    logits_ptr,
    temperatures_ptr,
    seeds_ptr,
    token_ids_ptr,
    are_finite_ptr,
    vocab_size,
    IS_RANDOM: tl.constexpr,
    SIZE: tl.constexpr,
):
    """The token of the largest ``logit / temperature + noise``; of equals the first.

    With Gumbel noise that is a draw from the softmax (Gumbel, 1954). Where the temperature is 0 there is none.
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, SIZE)
    best = tl.full([SIZE], float("-inf"), tl.float32)
    best_ids = columns
    poison = tl.zeros([SIZE], tl.float32)
    if IS_RANDOM:
        temperature = tl.load(temperatures_ptr + row)
        seed = tl.load(seeds_ptr + row)
    for first in range(0, vocab_size, SIZE):
        ids = first + columns
        inside = ids < vocab_size
        logits = tl.load(logits_ptr + row * vocab_size + ids, mask=inside, other=0.0).to(tl.float32)
        poison += logits * 0.0
        if IS_RANDOM:
            uniform = tl.maximum(tl.rand(seed, ids), 1e-10)
            noise = -tl.log(-tl.log(tl.minimum(uniform, 1.0 - 6e-8)))
            logits = tl.where(temperature > 0, logits / tl.where(temperature > 0, temperature, 1.0) + noise, logits)
        better = inside & (logits > best)
        best = tl.where(better, logits, best)
        best_ids = tl.where(better, ids, best_ids)
    largest = tl.max(best, axis=0)
    tl.store(token_ids_ptr + row, tl.min(tl.where(best == largest, best_ids, vocab_size - 1), axis=0))
    # Infinite or NaN times 0 is NaN, and every comparison with NaN is false.
    tl.store(are_finite_ptr + row, (tl.sum(poison, axis=0) == 0.0).to(tl.int32))
