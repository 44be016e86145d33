"""Paged attention in plain torch, one token after the other."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from layerscale_core.gpu.torch_kv import PagedKV
from layerscale_core.gpu.torch_step import TorchStep
from layerscale_core.models import AttentionSpec


def attend(query: Tensor, kv: PagedKV, layer: int, step: TorchStep, spec: AttentionSpec) -> Tensor:
    """``softmax(scale · query · keyᵀ) · value`` per token over keys up to its own: float32 in the query's shape."""
    # Heads [num_kv_heads, group, head_dim]: the queries of a group share one key-value head.
    queries = query.float().view(len(query), spec.num_kv_heads, -1, spec.head_dim) * spec.scale
    output = torch.empty_like(queries)
    stops = step.batch.cu_seqlens.tolist()
    for sequence, (first, stop) in enumerate(itertools.pairwise(stops)):
        slots = _context_slots(step, sequence, kv.page_size)
        keys = kv.key_codec.decode(kv.keys[layer, slots]).transpose(0, 1).contiguous()
        values = kv.value_codec.decode(kv.values[layer, slots]).transpose(0, 1).contiguous()
        for token in range(first, stop):
            context_len = len(slots) - (stop - 1 - token)
            seen = slice(_first_seen(context_len, spec), context_len)
            output[token] = _attend(queries[token], keys[:, seen], values[:, seen], spec.softcap)
    return output.view(query.shape)


def _first_seen(context_len: int, spec: AttentionSpec) -> int:
    """The first key that the last token of a context sees."""
    in_chunk = (context_len - 1) // spec.chunk * spec.chunk if spec.chunk else 0
    return max(0, context_len - (spec.window or context_len), in_chunk)


def _context_slots(step: TorchStep, sequence: int, page_size: int) -> Tensor:
    """The valid slots of a sequence, in order."""
    offsets = torch.arange(page_size, device=step.page_tables.device)
    starts, stops = step.page_starts[sequence, :, None], step.page_stops[sequence, :, None]
    slots = step.page_tables[sequence, :, None].long() * page_size + offsets
    return slots[(offsets >= starts) & (offsets < stops)]


def _attend(query: Tensor, keys: Tensor, values: Tensor, softcap: float | None) -> Tensor:
    """One token: query [num_kv_heads, group, head_dim] over keys and values [num_kv_heads, num_seen, head_dim]."""
    scores = query @ keys.transpose(1, 2)
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    return scores.softmax(-1) @ values
