"""The definition of every operation, written out once more: float64, one head and one token at a time, no pages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layerscale_core.models import Activation, AttentionSpec, MlpSpec, ModelSpec, MoeSpec, RopeSpec
from layerscale_core.models.spec import layer_weight
from layerscale_core.specs import WeightSource

Doubles = NDArray[np.float64]


class PlainModel:
    """A model on the dequantised weights."""

    def __init__(self, spec: ModelSpec, weights: WeightSource) -> None:
        self._spec = spec
        self._weights = weights

    def logits(self, token_ids: Sequence[int]) -> Doubles:
        """The logits of every token: [num_tokens, vocab_size]."""
        spec = self._spec
        x = self._matrix("embedding")[list(token_ids)] * spec.embedding_scale
        for index, layer in enumerate(spec.layers):
            attended = self._attention(self._norm(x, layer_weight(index, "attention_norm")), index, layer.attention)
            x = x + self._post_norm(attended, index, "attention_post_norm")
            normed = self._norm(x, layer_weight(index, "mlp_norm"))
            mix = self._mixture if isinstance(layer.mlp, MoeSpec) else self._mlp
            x = x + self._post_norm(mix(normed, index, layer.mlp), index, "mlp_post_norm")
        head = self._matrix("embedding" if spec.tied_output else "output")
        return _capped(self._norm(x, "output_norm") @ head.T, spec.logit_softcap)

    def _attention(self, x: Doubles, index: int, spec: AttentionSpec) -> Doubles:
        query, key, value = (self._heads(x, index, name, spec) for name in ("query", "key", "value"))
        if spec.has_qk_norm:
            query = self._norm(query, layer_weight(index, "query_norm"))
            key = self._norm(key, layer_weight(index, "key_norm"))
        output = np.zeros_like(query)
        for token in range(len(x)):
            first = 0 if spec.window is None else max(0, token + 1 - spec.window)
            first = first if spec.chunk is None else max(first, token - token % spec.chunk)
            for head in range(spec.num_heads):
                kv_head = head // (spec.num_heads // spec.num_kv_heads)
                rotated = _rotated(query[token, head], token, spec.rope)
                if spec.temperature is not None:
                    intervals = (token + spec.temperature.offset) // spec.temperature.interval
                    rotated = rotated * (1 + spec.temperature.slope * np.log(1 + intervals))
                keys = [_rotated(key[seen, kv_head], seen, spec.rope) for seen in range(first, token + 1)]
                probs = np.exp(_capped(np.array([rotated @ key * spec.scale for key in keys]), spec.softcap))
                output[token, head] = probs / probs.sum() @ value[first : token + 1, kv_head]
        return output.reshape(len(x), -1) @ self._matrix(layer_weight(index, "attention_output")).T

    def _heads(self, x: Doubles, index: int, name: str, spec: AttentionSpec) -> Doubles:
        projected = x @ self._matrix(layer_weight(index, name)).T
        if spec.has_biases:
            projected = projected + self._weights.vector(layer_weight(index, f"{name}_bias"))
        return projected.reshape(len(x), -1, spec.head_dim)

    def _mlp(self, x: Doubles, index: int, spec: MlpSpec, prefix: str = "") -> Doubles:
        gate, up, down = (self._matrix(layer_weight(index, prefix + name)) for name in ("gate", "up", "down"))
        gated = x @ gate.T
        if spec.activation is Activation.SILU:
            gated = gated / (1 + np.exp(-gated))
        else:
            gated = gated / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gated + 0.044715 * gated**3)))
        return (gated * (x @ up.T)) @ down.T

    def _mixture(self, x: Doubles, index: int, spec: MoeSpec) -> Doubles:
        output = np.zeros_like(x) if spec.shared is None else self._mlp(x, index, spec.shared, "shared.")
        for token, row in enumerate(x):
            scores = self._matrix(layer_weight(index, "router")) @ row
            if spec.is_sigmoid:
                for expert in np.argsort(-scores)[: spec.num_active]:
                    taken = row / (1 + np.exp(-scores[expert]))
                    output[token] += self._mlp(taken, index, spec.expert, f"experts.{expert}.")
                continue
            shares = np.exp(scores) / np.exp(scores).sum()
            best = np.argsort(-shares)[: spec.num_active]
            total = shares[best].sum() if spec.is_normalized else 1
            for expert in best:
                output[token] += shares[expert] / total * self._mlp(row, index, spec.expert, f"experts.{expert}.")
        return output

    def _norm(self, x: Doubles, name: str) -> Doubles:
        rms = np.sqrt((x**2).mean(axis=-1, keepdims=True) + self._spec.norm_eps)
        return x / rms * self._weights.vector(name)

    def _post_norm(self, x: Doubles, index: int, name: str) -> Doubles:
        return self._norm(x, layer_weight(index, name)) if self._spec.layers[index].has_post_norms else x

    def _matrix(self, name: str) -> Doubles:
        return self._weights.matrix(name).dequantize().astype(np.float64)


def _capped(x: Doubles, cap: float | None) -> Doubles:
    return x if cap is None else cap * np.tanh(x / cap)


def _rotated(head: Doubles, position: int, rope: RopeSpec) -> Doubles:
    half = rope.rotary_dim // 2
    result = head.copy()
    for pair, frequency in enumerate(rope.inv_freq):
        first, second = (2 * pair, 2 * pair + 1) if rope.interleaved else (pair, pair + half)
        turned = complex(head[first], head[second]) * np.exp(1j * position * frequency) * rope.magnitude
        result[first], result[second] = turned.real, turned.imag
    return result
