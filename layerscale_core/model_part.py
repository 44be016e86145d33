"""Some of a model's layers on one set of kernels: their weights, their KV cache, and the arithmetic of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscale_core.models import LayerSpec, MlpSpec, ModelSpec, MoeSpec
from layerscale_core.models import spec as names
from layerscale_core.specs.executor import KVLayout
from layerscale_core.specs.kernels import Array, ExpertWeights, Kernels
from layerscale_core.specs.model_format import WeightSource


class ModelPart:
    """What one set of kernels holds and computes of a model; it owns the kernels from here on.

    Args:
        layers: indices of its layers, in order.
        further_shapes: weights outside the layers that it also holds, by canonical name.
    """

    def __init__(
        self,
        kernels: Kernels,
        spec: ModelSpec,
        layers: Sequence[int],
        further_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.kernels = kernels
        self.layers = tuple(layers)
        self.weights: dict[str, Any] = {}
        self._spec = spec
        self._shapes = dict(further_shapes or {})
        for layer in layers:
            self._shapes |= names.layer_shapes(spec, layer)
        self._kv: Any = None
        self._kv_layers = {layer: number for number, layer in enumerate(layers)}

    def load(self, weights: WeightSource, kv: KVLayout) -> None:
        """Take its weights and its layers' part of the KV cache.

        Raises:
            OutOfMemoryError: they do not fit; ``release`` gives back what was taken until then.
        """
        for name, shape in self._shapes.items():
            if len(shape) == 2:
                self.weights[name] = self.kernels.load_matrix(weights.matrix(name))
            else:
                self.weights[name] = self.kernels.load_vector(weights.vector(name))
        if self.layers:
            self._kv = self.kernels.allocate_kv(replace(kv, num_layers=len(self.layers)))

    def run_layer(self, x: Array, step: Any, index: int) -> Array:
        """One layer over the residual stream [T, hidden]; writes the step's keys and values."""
        layer = self._spec.layers[index]
        x = self.kernels.add(x, self._attention(x, step, index, layer))
        return self.kernels.add(x, self._mlp(x, index, layer))

    def norm(self, x: Array, name: str) -> Array:
        """RMS norm with one of its weights."""
        return self.kernels.rms_norm(x, self.weights[name], self._spec.norm_eps)

    def copy_pages(self, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """Copy whole pages of its layers."""
        self.kernels.copy_pages(self._kv, source_ids, target_ids)

    def shift_positions(self, page_ids: NDArray[np.int32], delta: int) -> None:
        """Rotate the keys of whole pages, each layer by its own RoPE."""
        for layer, kv_layer in self._kv_layers.items():
            rope = self._spec.layers[layer].attention.rope
            self.kernels.shift_positions(self._kv, kv_layer, page_ids, delta, rope)

    @property
    def page_bytes(self) -> int:
        """Bytes of a page as ``read_pages`` gives it."""
        return int(self.read_pages(np.zeros(1, np.int32)).shape[1])

    def read_pages(self, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The content of whole pages of its layers."""
        return self.kernels.read_pages(self._kv, page_ids)

    def write_pages(self, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Put back what ``read_pages`` gave."""
        self.kernels.write_pages(self._kv, page_ids, data)

    def release(self) -> None:
        """Free weights and cache. Idempotent."""
        self.kernels.release()
        self.weights = {}
        self._kv = None

    def _attention(self, x: Array, step: Any, index: int, layer: LayerSpec) -> Array:
        kernels, kv_layer, spec = self.kernels, self._kv_layers[index], layer.attention
        x = self._norm(x, index, names.ATTENTION_NORM)
        query, key, value = (self._linear(x, index, name) for name in (names.QUERY, names.KEY, names.VALUE))
        if spec.has_biases:
            query = kernels.add(query, self._weight(index, names.QUERY_BIAS))
            key = kernels.add(key, self._weight(index, names.KEY_BIAS))
            value = kernels.add(value, self._weight(index, names.VALUE_BIAS))
        if spec.has_qk_norm:
            query = self._norm(query, index, names.QUERY_NORM)
            key = self._norm(key, index, names.KEY_NORM)
        query = kernels.rope(query, step, spec.num_heads, spec.head_dim, spec.rope)
        if spec.temperature is not None:
            query = kernels.scale_by_position(query, step, spec.temperature)
        key = kernels.rope(key, step, spec.num_kv_heads, spec.head_dim, spec.rope)
        kernels.store_kv(key, value, self._kv, kv_layer, step)
        attended = kernels.attention(query, self._kv, kv_layer, step, spec)
        output = self._linear(attended, index, names.ATTENTION_OUTPUT)
        return self._norm(output, index, names.ATTENTION_POST_NORM) if layer.has_post_norms else output

    def _mlp(self, x: Array, index: int, layer: LayerSpec) -> Array:
        x = self._norm(x, index, names.MLP_NORM)
        output = (
            self._experts(x, index, layer.mlp) if isinstance(layer.mlp, MoeSpec) else self._gated(x, index, layer.mlp)
        )
        return self._norm(output, index, names.MLP_POST_NORM) if layer.has_post_norms else output

    def _gated(self, x: Array, index: int, spec: MlpSpec, name_of: Callable[[str], str] = str) -> Array:
        gate, up, down = map(name_of, (names.GATE, names.UP, names.DOWN))
        hidden = self.kernels.gated_activation(
            self._linear(x, index, gate), self._linear(x, index, up), spec.activation
        )
        return self._linear(hidden, index, down)

    def _experts(self, x: Array, index: int, spec: MoeSpec) -> Array:
        experts = [self._expert(index, expert) for expert in range(spec.num_experts)]
        output = self.kernels.mixture(x, self._weight(index, names.ROUTER), experts, spec)
        if spec.shared is None:
            return output
        return self.kernels.add(output, self._gated(x, index, spec.shared, names.shared_weight))

    def _expert(self, index: int, expert: int) -> ExpertWeights:
        gate, up, down = (
            self._weight(index, names.expert_weight(expert, name)) for name in (names.GATE, names.UP, names.DOWN)
        )
        return ExpertWeights(gate, up, down)

    def _norm(self, x: Array, index: int, name: str) -> Array:
        return self.norm(x, names.layer_weight(index, name))

    def _linear(self, x: Array, index: int, name: str) -> Array:
        return self.kernels.linear(x, self._weight(index, name))

    def _weight(self, index: int, name: str) -> Any:
        return self.weights[names.layer_weight(index, name)]
