"""Attention of one token to the keys and values that it sees."""

from __future__ import annotations

import numpy as np

from layerscale_core.models import AttentionSpec
from layerscale_core.reference.arrays import Floats
from layerscale_core.reference.elementwise import softcap


def first_seen(context_len: int, spec: AttentionSpec) -> int:
    """The first key that the last token of a context sees."""
    first_in_window = max(0, context_len - (spec.window or context_len))
    first_in_chunk = (context_len - 1) // spec.chunk * spec.chunk if spec.chunk else 0
    return max(first_in_window, first_in_chunk)


def by_head(vectors: Floats) -> Floats:
    """A sequence's keys or values [num_slots, num_kv_heads, head_dim] as [num_kv_heads, num_slots, head_dim]."""
    return np.ascontiguousarray(vectors.transpose(1, 0, 2))


def attend(query: Floats, keys: Floats, values: Floats, cap: float | None) -> Floats:
    """``softmax(cap · tanh(query · keyᵀ / cap)) · value``; without a cap plainly ``softmax(query · keyᵀ) · value``.

    Args:
        query: one token's, already scaled: [num_kv_heads, group, head_dim].
        keys, values: [num_kv_heads, num_seen, head_dim].
    """
    scores = query @ keys.transpose(0, 2, 1)
    if cap is not None:
        scores = softcap(scores, cap)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    attended: Floats = weights @ values / weights.sum(axis=-1, keepdims=True)
    return attended
