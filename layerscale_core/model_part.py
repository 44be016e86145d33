"""Some of a model's layers on one set of kernels: their weights, their KV cache, and the arithmetic of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscale_core.models import LayerSpec, ModelSpec
from layerscale_core.models import spec as names
from layerscale_core.specs.executor import KVLayout
from layerscale_core.specs.kernels import Array, Kernels
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
        kernels, spec, kv_layer = self.kernels, layer.attention, self._kv_layers[index]
        x = self.norm(x, names.layer_weight(index, names.ATTENTION_NORM))
        query = self._linear(x, index, names.QUERY)
        key = self._linear(x, index, names.KEY)
        value = self._linear(x, index, names.VALUE)
        query = kernels.rope(query, step, spec.num_heads, spec.head_dim, spec.rope)
        key = kernels.rope(key, step, spec.num_kv_heads, spec.head_dim, spec.rope)
        kernels.store_kv(key, value, self._kv, kv_layer, step)
        attended = kernels.attention(query, self._kv, kv_layer, step, spec)
        return self._linear(attended, index, names.ATTENTION_OUTPUT)

    def _mlp(self, x: Array, index: int, layer: LayerSpec) -> Array:
        x = self.norm(x, names.layer_weight(index, names.MLP_NORM))
        gate, up = self._linear(x, index, names.GATE), self._linear(x, index, names.UP)
        hidden = self.kernels.gated_activation(gate, up, layer.mlp.activation)
        return self._linear(hidden, index, names.DOWN)

    def _linear(self, x: Array, index: int, name: str) -> Array:
        return self.kernels.linear(x, self.weights[names.layer_weight(index, name)])
