"""The transformer's forward pass, written once over the kernel spec: for backends of kernels only, and for offload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import StepError
from layerscale_core.model_part import HostedPart, ModelPart
from layerscale_core.models import ModelSpec, MoeSpec
from layerscale_core.models import spec as names
from layerscale_core.offload import layer_ranges
from layerscale_core.specs.backend import Device, LayersHost
from layerscale_core.specs.executor import Executor, KVLayout, StepBatch, StepLogits
from layerscale_core.specs.kernels import Array, Kernels
from layerscale_core.specs.model_format import WeightSource

Part = ModelPart | HostedPart
"""What one side holds and computes."""


@dataclass(frozen=True, slots=True)
class HostLayers:
    """Layers that stay in host memory and are computed there.

    Attributes:
        indices: which, in order; at least one.
        kernels: the host's.
        host: who may compute them by more than those kernels.
    """

    indices: tuple[int, ...]
    kernels: Kernels
    host: LayersHost | None = None

    @classmethod
    def on(cls, device: Device, indices: tuple[int, ...]) -> HostLayers:
        """As the host's device computes them best."""
        return cls(indices, device.make_kernels(), device if isinstance(device, LayersHost) else None)

    def load(self, spec: ModelSpec, weights: WeightSource, kv: KVLayout) -> Part:
        """Take their weights and their part of the KV cache.

        Raises:
            OutOfMemoryError, UnsupportedModelError: as ``LayersHost.make_layers``; nothing stays loaded then.
        """
        if self.host is not None:
            own_kv = replace(kv, num_layers=len(self.indices))
            hosted = self.host.make_layers(spec, weights, own_kv, self.indices)
            if hosted is not None:
                return HostedPart(self.indices, hosted)
        part = ModelPart(self.kernels, spec, self.indices)
        part.load(weights, kv)
        return part


def make_executor(
    device: Device, spec: ModelSpec, weights: WeightSource, kv: KVLayout, host_layers: HostLayers | None = None
) -> Executor:
    """The device's own executor, or core's over the device's kernels: always core's when layers stay on the host.

    Raises:
        OutOfMemoryError, UnsupportedModelError: as ``Device.make_executor``.
    """
    own = device.make_executor(spec, weights, kv) if host_layers is None else None
    return own or KernelExecutor(device.make_kernels(), spec, weights, kv, host_layers)


class KernelExecutor:
    """``layerscale_core.specs.Executor`` over kernels; it owns them from here on.

    A layer's keys and values live beside what computes it. What crosses between host and device is the residual stream
    [T, hidden], wherever a layer and the next are on different sides.

    Raises:
        OutOfMemoryError: weights and cache do not fit; nothing stays loaded then.
    """

    def __init__(
        self,
        kernels: Kernels,
        spec: ModelSpec,
        weights: WeightSource,
        kv: KVLayout,
        host_layers: HostLayers | None = None,
    ) -> None:
        self._spec = spec
        self._layout = kv
        on_host = host_layers.indices if host_layers else ()
        on_device = [index for index in range(len(spec.layers)) if index not in on_host]
        self._device = ModelPart(kernels, spec, on_device, names.outer_shapes(spec))
        self._parts: list[Part] = [self._device]
        has_experts = any(isinstance(layer.mlp, MoeSpec) for layer in spec.layers)
        self._can_replay = host_layers is None and not has_experts  # which of them compute depends on the tokens
        try:
            self._device.load(weights, kv)
            if host_layers:
                self._parts.append(host_layers.load(spec, weights, kv))
            weights.drop_cache()
        except BaseException:
            self.close()
            raise
        self._parts_with_pages = [part for part in self._parts if part.layers]
        part_of = {index: part for part in self._parts for index in part.layers}
        side_by_side = groupby(range(len(spec.layers)), part_of.__getitem__)
        self._runs = [(part, tuple(layers)) for part, layers in side_by_side]

    def step(self, batch: StepBatch) -> StepLogits:
        """Compute a batch; see ``Executor.step``."""
        try:
            return self._forward(batch)
        except Exception as error:
            raise StepError(f"the forward pass failed: {type(error).__name__}: {error}") from error

    def copy_pages(self, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """Copy whole pages, all layers."""
        for part in self._parts_with_pages:
            part.pages.copy_pages(source_ids, target_ids)

    def shift_positions(self, page_ids: NDArray[np.int32], delta: int) -> None:
        """Rotate the keys of whole pages, each layer by its own RoPE."""
        for part in self._parts_with_pages:
            part.pages.shift_positions(page_ids, delta)

    @property
    def kv_fingerprint(self) -> str:
        """Which layers' pages lie in which kernels' format, and the page's shape."""
        formats = [
            f"{part.pages.kv_fingerprint} of layers {layer_ranges(part.layers)}" for part in self._parts_with_pages
        ]
        return f"{' and '.join(formats)}, {self._layout.page_shape}"

    def read_pages(self, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The content of whole pages: the device's layers, then the host's."""
        return np.concatenate([part.pages.read_pages(page_ids) for part in self._parts_with_pages], axis=1)

    def write_pages(self, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Put back what ``read_pages`` gave."""
        page = np.zeros(1, np.int32)
        stops = np.cumsum([part.pages.read_pages(page).shape[1] for part in self._parts_with_pages])
        if data.shape != (len(page_ids), stops[-1]):
            raise ValueError(f"{data.shape} bytes are not the content of {len(page_ids)} pages of {stops[-1]} bytes")
        for part, of_part in zip(self._parts_with_pages, np.split(data, stops[:-1], axis=1), strict=True):
            part.pages.write_pages(page_ids, of_part)

    def close(self) -> None:
        """Free the weights and the KV cache. Idempotent."""
        for part in self._parts:
            part.pages.close()

    def _forward(self, batch: StepBatch) -> StepLogits:
        steps: dict[Part, Any] = {part: part.begin_step(batch) for part in self._parts}
        device, kernels = self._device, self._device.kernels
        if batch.logits_indices.size == 0:
            self._run_layers(steps)
            return np.empty((0, self._spec.vocab_size), np.float32)
        if self._can_replay:
            return kernels.step_logits(kernels.run_step(steps[device], lambda step: self._logits({device: step})))
        return kernels.step_logits(self._logits(steps))

    def _run_layers(self, steps: Mapping[Part, Any]) -> tuple[Array, Part]:
        """The residual stream behind the last layer, and where it is."""
        here: Part = self._device
        kernels, table = self._device.kernels, self._device.outer_weights[names.EMBEDDING]
        x = kernels.embed(table, steps[self._device])
        if self._spec.embedding_scale != 1:
            x = kernels.scale(x, self._spec.embedding_scale)
        for there, layers in self._runs:
            x, here = _carry(x, here, there), there
            x = here.run(x, steps[here], layers)
        return x, here

    def _logits(self, steps: Mapping[Part, Any]) -> Array:
        """Of the rows that are wanted, on the device."""
        x, here = self._run_layers(steps)
        x = _carry(here.select(x, steps[here]), here, self._device)
        kernels, weights = self._device.kernels, self._device.outer_weights
        head = weights[names.EMBEDDING if self._spec.tied_output else names.OUTPUT]
        logits = kernels.linear(self._device.norm(x, names.OUTPUT_NORM), head)
        return logits if self._spec.logit_softcap is None else kernels.softcap(logits, self._spec.logit_softcap)


def _carry(x: Array, source: Part, target: Part) -> Array:
    """Activations from one part to another, through the host."""
    return x if source is target else target.from_host(source.to_host(x))
