"""The first steps of an executor: they compile kernels and record graphs, so that no request waits for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerscale_core.errors import BackendError, StepError
from layerscale_core.specs.executor import Executor, KVLayout, StepBatch
from layerscale_core.specs.kv_pool import num_pages_for

PREFILL_LENS = (2, 64)
"""A step of few tokens, whose tiles are narrow, and one of many. The largest is a third: it fills the device without
tiles being split among programs, which is how kernels are compiled differently between these two and nowhere else."""


def warm_up(executor: Executor, kv: KVLayout, max_tokens: int, buckets: Sequence[int]) -> None:
    """Prefill and decode, in the pages of a cache that nobody uses yet.

    Args:
        max_tokens: of the largest step that memory was planned for.
        buckets: sequences in the decode steps that are recorded.

    Raises:
        BackendError: the device fails at what it will be asked for.
    """
    lengths = [*(length for length in PREFILL_LENS if length < max_tokens), max_tokens]
    shapes = [*((1, length) for length in lengths), *((bucket, 1) for bucket in buckets)]
    fitting = [shape for shape in shapes if shape[0] * pages_each(kv, shape[1]) <= kv.num_pages]
    try:
        for num_seqs, length in fitting:
            executor.step(step_batch(kv, num_seqs, 0, length))
    except StepError as error:
        raise BackendError(f"the GPU fails at a first step: {error}") from error


def step_batch(kv: KVLayout, num_seqs: int, num_cached: int, num_new: int) -> StepBatch:
    """The next tokens of sequences whose cached ones lie in pages one after the other; the last one's logits."""
    num_pages = pages_each(kv, num_cached + num_new)
    tables = np.arange(num_seqs * num_pages, dtype=np.int32).reshape(num_seqs, num_pages)
    stops = np.full_like(tables, kv.page_size)
    stops[:, -1] = num_cached + num_new - (num_pages - 1) * kv.page_size
    places = np.arange(num_cached, num_cached + num_new)
    slots = tables[:, places // kv.page_size] * np.int64(kv.page_size) + places % kv.page_size
    cu_seqlens = np.arange(num_seqs + 1, dtype=np.int32) * num_new
    return StepBatch(
        token_ids=np.zeros(num_seqs * num_new, np.int32),
        positions=np.tile(places, num_seqs).astype(np.int32),
        slot_mapping=slots.reshape(-1).astype(np.int64),
        cu_seqlens=cu_seqlens,
        page_tables=tables,
        page_starts=np.zeros_like(tables),
        page_stops=stops,
        logits_indices=cu_seqlens[1:] - 1,
    )


def pages_each(kv: KVLayout, num_tokens: int) -> int:
    """Pages of a sequence with so many tokens."""
    return num_pages_for(num_tokens, kv.page_size)
