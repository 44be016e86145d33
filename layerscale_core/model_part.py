"""Some of a model's layers on one side: their weights, their KV cache, and the operations of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscale_core.layer_weights import LayerLoader, MixtureWeights
from layerscale_core.models import ModelSpec
from layerscale_core.specs.executor import HostedLayers, KVLayout, PagedLayers, StepBatch
from layerscale_core.specs.kernels import Array, AttentionWeights, Kernels, MlpWeights
from layerscale_core.specs.model_format import WeightSource


class ModelPart:
    """``layerscale_core.specs.PagedLayers`` of what one set of kernels holds; it owns the kernels from here on.

    Args:
        layers: indices of its layers, in order.
        outer_shapes: weights outside the layers that it also holds, by canonical name.

    Attributes:
        outer_weights: handles of those, by canonical name.
    """

    def __init__(
        self,
        kernels: Kernels,
        spec: ModelSpec,
        layers: Sequence[int],
        outer_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.kernels = kernels
        self.layers = tuple(layers)
        self.outer_weights: dict[str, Any] = {}
        self._spec = spec
        self._outer_shapes = dict(outer_shapes or {})
        self._attention_weights: dict[int, AttentionWeights] = {}
        self._mlp_weights: dict[int, MlpWeights | MixtureWeights] = {}
        self._kv: Any = None
        self._kv_layers = {layer: number for number, layer in enumerate(layers)}

    def load(self, weights: WeightSource, kv: KVLayout) -> None:
        """Take its weights and its layers' part of the KV cache.

        Raises:
            OutOfMemoryError: they do not fit; nothing stays loaded then.
        """
        try:
            self._load(weights, kv)
        except BaseException:
            self.close()
            raise

    def _load(self, weights: WeightSource, kv: KVLayout) -> None:
        for name, shape in self._outer_shapes.items():
            if len(shape) == 2:
                self.outer_weights[name] = self.kernels.load_matrix(weights.matrix(name))
            else:
                self.outer_weights[name] = self.kernels.load_vector(weights.vector(name))
        for index in self.layers:
            loader = LayerLoader(self.kernels, weights, index, self._spec)
            self._attention_weights[index] = loader.attention()
            self._mlp_weights[index] = loader.mlp()
        if self.layers:
            self._kv = self.kernels.allocate_kv(replace(kv, num_layers=len(self.layers)))

    @property
    def pages(self) -> PagedLayers:
        """Where its layers' pages are."""
        return self

    def begin_step(self, batch: StepBatch) -> Any:
        """What ``run`` takes as ``step``."""
        return self.kernels.begin_step(batch)

    def run(self, x: Array, step: Any, layers: Sequence[int]) -> Array:
        """Neighbouring layers over the residual stream [T, hidden]; writes the step's keys and values."""
        for index in layers:
            x = self._add_mlp(self._add_attention(x, step, index), self._mlp_weights[index])
        return x

    def select(self, x: Array, step: Any) -> Array:
        """The rows of x whose logits are wanted."""
        return self.kernels.select(x, step)

    def to_host(self, x: Array) -> NDArray[np.float32]:
        """Activations on the host."""
        return self.kernels.to_host(x)

    def from_host(self, x: NDArray[np.float32]) -> Array:
        """Activations from the host."""
        return self.kernels.from_host(x)

    def norm(self, x: Array, name: str) -> Array:
        """RMS norm with one of its weights outside the layers."""
        return self.kernels.rms_norm(x, self.outer_weights[name], self._spec.norm_eps)

    def copy_pages(self, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """Copy whole pages of its layers."""
        self.kernels.copy_pages(self._kv, source_ids, target_ids)

    def shift_positions(self, page_ids: NDArray[np.int32], delta: int) -> None:
        """Rotate the keys of whole pages, each layer by its own RoPE."""
        for layer, kv_layer in self._kv_layers.items():
            rope = self._spec.layers[layer].attention.rope
            self.kernels.shift_positions(self._kv, kv_layer, page_ids, delta, rope)

    @property
    def kv_fingerprint(self) -> str:
        """The kernels' format."""
        return self.kernels.kv_format

    def read_pages(self, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The content of whole pages of its layers."""
        return self.kernels.read_pages(self._kv, page_ids)

    def write_pages(self, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Put back what ``read_pages`` gave."""
        self.kernels.write_pages(self._kv, page_ids, data)

    def close(self) -> None:
        """Free weights and cache. Idempotent."""
        self.kernels.release()
        self.outer_weights, self._attention_weights, self._mlp_weights = {}, {}, {}
        self._kv = None

    def _add_attention(self, x: Array, step: Any, index: int) -> Array:
        kernels, weights, kv_layer = self.kernels, self._attention_weights[index], self._kv_layers[index]
        query = kernels.project_qkv(x, weights, self._kv, kv_layer, step)
        if weights.spec.temperature is not None:
            query = kernels.scale_by_position(query, step, weights.spec.temperature)
        attended = kernels.attention(query, self._kv, kv_layer, step, weights.spec)
        return kernels.add_linear(x, attended, weights.output, weights.post_norm, weights.eps)

    def _add_mlp(self, x: Array, weights: MlpWeights | MixtureWeights) -> Array:
        kernels, eps = self.kernels, weights.eps
        if isinstance(weights, MlpWeights):
            hidden = kernels.gated_linear(x, weights)
            return kernels.add_linear(x, hidden, weights.down, weights.post_norm, eps)
        output = kernels.mixture(kernels.rms_norm(x, weights.norm, eps), weights.router, weights.experts, weights.spec)
        if weights.shared is not None:
            hidden = kernels.gated_linear(x, weights.shared)
            output = kernels.add_linear(output, hidden, weights.shared.down, None, eps)
        return kernels.add(x, output if weights.post_norm is None else kernels.rms_norm(output, weights.post_norm, eps))


@dataclass(frozen=True, slots=True, eq=False)
class HostedPart:
    """Layers that a device of the host holds and computes; activations are the host's.

    Attributes:
        layers: their indices, ascending.
    """

    layers: tuple[int, ...]
    pages: HostedLayers

    def begin_step(self, batch: StepBatch) -> StepBatch:
        """As it is."""
        return batch

    def run(self, x: NDArray[np.float32], step: StepBatch, layers: Sequence[int]) -> NDArray[np.float32]:
        """Neighbouring layers over the residual stream [T, hidden]; writes the step's keys and values."""
        first = self.layers.index(layers[0])
        return self.pages.run(x, step, range(first, first + len(layers)))

    def select(self, x: NDArray[np.float32], step: StepBatch) -> NDArray[np.float32]:
        """The rows of x whose logits are wanted."""
        return x[step.logits_indices]

    def to_host(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """As they are."""
        return x

    def from_host(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """As they are."""
        return x
