"""The transformer's forward pass, written once over the kernel spec: what serves a backend that brings kernels only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import StepError
from layerscale_core.models import LayerSpec, ModelSpec
from layerscale_core.models import spec as names
from layerscale_core.specs.backend import Device
from layerscale_core.specs.executor import Executor, KVLayout, StepBatch
from layerscale_core.specs.kernels import Array, Kernels
from layerscale_core.specs.model_format import WeightSource


def make_executor(device: Device, spec: ModelSpec, weights: WeightSource, kv: KVLayout) -> Executor:
    """The device's own executor, or core's over the device's kernels.

    Raises:
        OutOfMemoryError, UnsupportedModelError: as ``Device.make_executor``.
    """
    return device.make_executor(spec, weights, kv) or KernelExecutor(device.make_kernels(), spec, weights, kv)


class KernelExecutor:
    """``layerscale_core.specs.Executor`` over a backend's kernels; it owns them from here on.

    Raises:
        OutOfMemoryError: the device cannot hold weights and cache; nothing stays loaded then.
    """

    def __init__(self, kernels: Kernels, spec: ModelSpec, weights: WeightSource, kv: KVLayout) -> None:
        self._kernels = kernels
        self._spec = spec
        self._layout = kv
        try:
            self._weights = _load_weights(kernels, spec, weights)
            self._kv = kernels.allocate_kv(kv)
        except BaseException:
            kernels.release()
            raise

    def step(self, batch: StepBatch) -> NDArray[np.float32]:
        """Compute a batch; see ``Executor.step``."""
        try:
            return self._forward(batch)
        except Exception as error:
            raise StepError(f"the forward pass failed: {type(error).__name__}: {error}") from error

    def copy_pages(self, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """Copy whole pages, all layers."""
        self._kernels.copy_pages(self._kv, source_ids, target_ids)

    def shift_positions(self, page_ids: NDArray[np.int32], delta: int) -> None:
        """Rotate the keys of whole pages, each layer by its own RoPE."""
        for index, layer in enumerate(self._spec.layers):
            self._kernels.shift_positions(self._kv, index, page_ids, delta, layer.attention.rope)

    @property
    def kv_fingerprint(self) -> str:
        """The kernels' format and the page's shape."""
        return f"{self._kernels.kv_format}, {self._layout.page_shape}"

    def read_pages(self, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The content of whole pages, all layers."""
        return self._kernels.read_pages(self._kv, page_ids)

    def write_pages(self, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Put back what ``read_pages`` gave."""
        self._kernels.write_pages(self._kv, page_ids, data)

    def close(self) -> None:
        """Free the weights and the KV cache. Idempotent."""
        self._kernels.release()
        self._weights = {}
        self._kv = None

    def _forward(self, batch: StepBatch) -> NDArray[np.float32]:
        kernels = self._kernels
        step = kernels.begin_step(batch)
        x = kernels.embed(self._weights[names.EMBEDDING], step)
        for index, layer in enumerate(self._spec.layers):
            x = kernels.add(x, self._attention(x, step, index, layer))
            x = kernels.add(x, self._mlp(x, index, layer))
        if batch.logits_indices.size == 0:
            return np.empty((0, self._spec.vocab_size), np.float32)
        x = self._norm(kernels.select(x, step), names.OUTPUT_NORM)
        head = names.EMBEDDING if self._spec.tied_output else names.OUTPUT
        return kernels.to_host(kernels.linear(x, self._weights[head]))

    def _attention(self, x: Array, step: Any, index: int, layer: LayerSpec) -> Array:
        kernels, spec = self._kernels, layer.attention
        x = self._norm(x, names.layer_weight(index, names.ATTENTION_NORM))
        query = self._linear(x, index, names.QUERY)
        key = self._linear(x, index, names.KEY)
        value = self._linear(x, index, names.VALUE)
        query = kernels.rope(query, step, spec.num_heads, spec.head_dim, spec.rope)
        key = kernels.rope(key, step, spec.num_kv_heads, spec.head_dim, spec.rope)
        kernels.store_kv(key, value, self._kv, index, step)
        attended = kernels.attention(query, self._kv, index, step, spec)
        return self._linear(attended, index, names.ATTENTION_OUTPUT)

    def _mlp(self, x: Array, index: int, layer: LayerSpec) -> Array:
        x = self._norm(x, names.layer_weight(index, names.MLP_NORM))
        gate, up = self._linear(x, index, names.GATE), self._linear(x, index, names.UP)
        hidden = self._kernels.gated_activation(gate, up, layer.mlp.activation)
        return self._linear(hidden, index, names.DOWN)

    def _norm(self, x: Array, name: str) -> Array:
        return self._kernels.rms_norm(x, self._weights[name], self._spec.norm_eps)

    def _linear(self, x: Array, index: int, name: str) -> Array:
        return self._kernels.linear(x, self._weights[names.layer_weight(index, name)])


def _load_weights(kernels: Kernels, spec: ModelSpec, weights: WeightSource) -> dict[str, Any]:
    """Every weight of the model on the device, by canonical name."""
    loaded = {
        name: kernels.load_matrix(weights.matrix(name))
        if len(shape) == 2
        else kernels.load_vector(weights.vector(name))
        for name, shape in names.weight_shapes(spec).items()
    }
    weights.drop_cache()
    return loaded
