"""The plain float32 computation of a Gemma 3 model: no cache, no batch, weights read by the ``gguf`` package.

It shares no line with the engine, so that the truth does not depend on what is to be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FULL_EVERY = 6
LOCAL_BASE = 10_000.0


class PlainGemma3:
    """A Gemma 3 GGUF without rope scaling, dequantised to float32. Only for files that are trusted."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self._fields: dict[str, Any] = {
            name.removeprefix("gemma3."): field.contents()
            for name, field in reader.fields.items()
            if name.startswith("gemma3.")
        }
        self._weights = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}

    def hidden(self, token_ids: Sequence[int]) -> Floats:
        """What the head is multiplied with, at every position: [num_tokens, hidden_size]."""
        embedding = self._weights["token_embd.weight"]
        x = embedding[list(token_ids)] * np.sqrt(np.float32(embedding.shape[1]))
        for layer in range(self._fields["block_count"]):
            x = x + self._norm(self._attention(self._norm(x, layer, "attn_norm"), layer), layer, "post_attention_norm")
            x = x + self._norm(self._mlp(self._norm(x, layer, "ffn_norm"), layer), layer, "post_ffw_norm")
        return self._rms_norm(x, self._weights["output_norm.weight"])

    def logits(self, hidden: Floats) -> Floats:
        """The logits of some positions: [num_positions, vocab_size]."""
        return hidden @ self._weights["token_embd.weight"].T

    def _weight(self, layer: int, kind: str) -> Floats:
        return self._weights[f"blk.{layer}.{kind}.weight"]

    def _norm(self, x: Floats, layer: int, kind: str) -> Floats:
        return self._rms_norm(x, self._weight(layer, kind))

    def _rms_norm(self, x: Floats, weight: Floats) -> Floats:
        mean_square = np.mean(x**2, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self._fields["attention.layer_norm_rms_epsilon"]) * weight

    def _mlp(self, x: Floats, layer: int) -> Floats:
        gate, up = x @ self._weight(layer, "ffn_gate").T, x @ self._weight(layer, "ffn_up").T
        gelu = gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        return (gelu * up).astype(np.float32) @ self._weight(layer, "ffn_down").T

    def _attention(self, x: Floats, layer: int) -> Floats:
        is_full = (layer + 1) % FULL_EVERY == 0
        base = self._fields["rope.freq_base"] if is_full else LOCAL_BASE
        num_tokens, head_dim = len(x), self._fields["attention.key_length"]

        def heads(kind: str) -> Floats:
            return (x @ self._weight(layer, kind).T).reshape(num_tokens, -1, head_dim)

        query = _rotated(self._norm(heads("attn_q"), layer, "attn_q_norm"), base)
        key = _rotated(self._norm(heads("attn_k"), layer, "attn_k_norm"), base)
        value = heads("attn_v")
        group = query.shape[1] // key.shape[1]
        key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
        scores = np.einsum("qhd,khd->hqk", query, key, optimize=True) / np.sqrt(np.float32(head_dim))
        distance = np.arange(num_tokens)[:, None] - np.arange(num_tokens)
        window = num_tokens if is_full else self._fields["attention.sliding_window"]
        scores[:, (distance < 0) | (distance >= window)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        attended = np.einsum("hqk,khd->qhd", weights, value, optimize=True).reshape(num_tokens, -1)
        return attended @ self._weight(layer, "attn_output").T


def _rotated(x: Floats, base: float) -> Floats:
    """Rotate the pairs (i, i + head_dim / 2) of each head [num_tokens, heads, head_dim]."""
    num_tokens, _, head_dim = x.shape
    half = head_dim // 2
    angles = np.arange(num_tokens)[:, None, None] * float(base) ** (-np.arange(half) / half)
    rotated = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([rotated.real, rotated.imag], axis=-1).astype(np.float32)
