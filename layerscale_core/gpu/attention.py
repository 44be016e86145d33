"""Ragged paged attention, in decode and in prefill."""

from __future__ import annotations

import torch
from torch import Tensor

from layerscale_core.gpu.kernels.attention import attention_kernel
from layerscale_core.gpu.kv_cache import KVCache
from layerscale_core.gpu.launch import COMPUTE_TYPES, ceil_div, launch, next_power_of_two
from layerscale_core.gpu.step import StepTensors
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.gpu.workspace import Workspace
from layerscale_core.models import AttentionSpec

UNBOUNDED = 2**30
"""Keys that no context reaches."""


def tokens_per_tile(spec: AttentionSpec, max_new_tokens: int, tuning: Tuning) -> int:
    """Tokens of one sequence that a program takes at a time: what the step's tiles are cut by."""
    group = spec.num_heads // spec.num_kv_heads
    return max(1, tuning.attention_tile(max_new_tokens).queries // group)


def attention(
    query: Tensor,
    cache: KVCache,
    layer: int,
    step: StepTensors,
    spec: AttentionSpec,
    *,
    out: Tensor,
    workspace: Workspace,
    tuning: Tuning,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """``softmax(scale · query · keyᵀ) · value`` of each token over the keys up to its own; returns ``out``.

    Args:
        query: [T, num_heads * head_dim], rotated as the keys are where the cache holds codes.
        step: its tiles were cut by ``tokens_per_tile``.
        out: of query's shape, any float dtype; rows of padding are left as they are.
        dtype: what products are computed in; query's by default.
    """
    group = spec.num_heads // spec.num_kv_heads
    tile = tuning.attention_tile(step.tiles.max_new_tokens)
    tile_tokens = tokens_per_tile(spec, step.tiles.max_new_tokens, tuning)
    queries = max(tile.queries, next_power_of_two(group))
    num_tiles = step.tiles.sequences.numel()
    rotation, rotation_factor = cache.rotation or (None, 1.0)
    num_programs = num_tiles * spec.num_kv_heads
    max_partitions = step.tiles.num_pages * cache.layout.page_size // tuning.partition + num_tiles
    num_partials = max_partitions * spec.num_kv_heads * tile_tokens * group * (cache.width + 2)
    num_sharing = min(max_partitions, ceil_div(tuning.sharing * tuning.target_programs, num_programs))
    if num_programs >= tuning.target_programs or not workspace.holds(num_partials, num_programs):
        num_sharing = 1
    launch(
        attention_kernel, (num_tiles, spec.num_kv_heads, num_sharing), tile.launch,
        query, cache.keys.layer(layer), cache.values.layer(layer), rotation, step.tiles.sequences, step.tiles.firsts,
        step.tiles.page_offsets, step.cu_seqlens, step.page_offsets, step.pages, out, workspace.partials,
        workspace.counters, spec.num_kv_heads, cache.layout.page_size, spec.scale, spec.softcap or 0.0, rotation_factor,
        spec.window or UNBOUNDED, spec.chunk or UNBOUNDED,
        HAS_SOFTCAP=spec.softcap is not None, HEADS=group, TILE_TOKENS=tile_tokens, QUERIES=queries,
        KEYS=tuning.keys_at_a_time(cache.width), PARTITION=tuning.partition, IS_SPLIT=num_sharing > 1,
        DTYPE=COMPUTE_TYPES[dtype or query.dtype], **cache.constants(),
    )  # fmt: skip
    return out
