"""The plain float32 computation of a llama model: no cache, no batch, weights read by the ``gguf`` package.

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


class PlainLlama:
    """A llama GGUF without rope scaling, dequantised to float32. Only for files that are trusted."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self._fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self._weights = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self._num_heads = int(self._fields["llama.attention.head_count"])
        self._num_kv_heads = int(self._fields["llama.attention.head_count_kv"])

    def logits(self, token_ids: Sequence[int]) -> Floats:
        """The logits of every position: [num_tokens, vocab_size]."""
        x = self._weights["token_embd.weight"][list(token_ids)]
        for layer in range(self._fields["llama.block_count"]):
            w = {kind: self._weights[f"blk.{layer}.{kind}.weight"] for kind in _LAYER_WEIGHTS}
            normed = self._rms_norm(x, w["attn_norm"])
            query, key, value = (normed @ w[kind].T for kind in ("attn_q", "attn_k", "attn_v"))
            x = x + self._attention(query, key, value) @ w["attn_output"].T
            normed = self._rms_norm(x, w["ffn_norm"])
            gate, up = normed @ w["ffn_gate"].T, normed @ w["ffn_up"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w["ffn_down"].T
        head = self._weights.get("output.weight", self._weights["token_embd.weight"])
        return self._rms_norm(x, self._weights["output_norm.weight"]) @ head.T

    def _rms_norm(self, x: Floats, weight: Floats) -> Floats:
        mean_square = np.mean(x**2, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self._fields["llama.attention.layer_norm_rms_epsilon"]) * weight

    def _attention(self, query: Floats, key: Floats, value: Floats) -> Floats:
        num_tokens = len(query)
        query = self._rope(query.reshape(num_tokens, self._num_heads, -1))
        key = self._rope(key.reshape(num_tokens, self._num_kv_heads, -1))
        value = value.reshape(num_tokens, self._num_kv_heads, -1)
        group = self._num_heads // self._num_kv_heads
        key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
        scores = np.einsum("qhd,khd->hqk", query, key, optimize=True) / np.sqrt(np.float32(query.shape[-1]))
        scores[:, ~np.tri(num_tokens, dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.einsum("hqk,khd->qhd", weights, value, optimize=True).reshape(num_tokens, -1)

    def _rope(self, x: Floats) -> Floats:
        """Rotate the pairs (2i, 2i + 1) of each head [num_tokens, heads, head_dim], as llama GGUFs lay them out."""
        num_tokens, _, head_dim = x.shape
        inv_freq = float(self._fields["llama.rope.freq_base"]) ** (-np.arange(0, head_dim, 2) / head_dim)
        angles = np.arange(num_tokens)[:, None, None] * inv_freq
        rotated = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
        return np.stack([rotated.real, rotated.imag], axis=-1).reshape(x.shape).astype(np.float32)


_LAYER_WEIGHTS = (
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"),
    *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
)
