"""Which of a model's layers go where, and what the memories must then hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from layerscale_core.errors import BackendError, PluginError
from layerscale_core.forward import HostLayers
from layerscale_core.memory_plan import MemoryShare
from layerscale_core.models.spec import layer_shapes
from layerscale_core.specs import (
    Backend,
    Capabilities,
    Device,
    KVType,
    LayersHost,
    ModelFile,
    OffloadPlanner,
    StepLimits,
)

_TOKENS_PER_STEP = 512
"""Token budget of a step: prefill runs near its best from here on, and a running answer waits for no more than this."""

_LOGITS_PER_STEP = 128
"""Rows of logits in a step: more only when prompts are scored, and then in several steps."""

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Site:
    """Where layers can be: a loaded backend.

    Attributes:
        assumed_bytes: plan as if so much of its memory were available; None = what is found.
    """

    backend: Backend
    device: Device
    assumed_bytes: int | None = None

    @property
    def available_bytes(self) -> int:
        """What its memory can still give."""
        if self.assumed_bytes is not None:
            return self.assumed_bytes
        return min(self.device.allocator.stats().free_bytes, self.device.infos[0].free_memory_bytes)


@dataclass(frozen=True, slots=True)
class HostPart:
    """The layers that stay on the host: their indices, where they are computed, and what they take there."""

    layers: tuple[int, ...]
    site: Site
    share: MemoryShare

    def make_host_layers(self) -> HostLayers:
        """What core's executor takes."""
        return HostLayers.on(self.site.device, self.layers)


@dataclass(frozen=True, slots=True)
class Placement:
    """A model on a device, and perhaps in part on the host.

    Attributes:
        kv_types: precisions of the KV cache that everyone who computes reads.
        share: what it takes of the device.
    """

    limits: StepLimits
    page_size: int
    kv_types: tuple[KVType, ...]
    share: MemoryShare
    host: HostPart | None = None


def place_whole(file: ModelFile, device: Site, context_len: int) -> Placement:
    """Everything on the device."""
    capabilities = device.backend.capabilities
    limits = _limits(capabilities, context_len)
    needs = device.device.memory_needs(file.spec, file.weights, limits)
    share = MemoryShare(device.available_bytes, needs.weights_bytes, needs.workspace_bytes)
    return Placement(limits, capabilities.page_sizes[0], capabilities.kv_types, share)


class Offloading:
    """A model divided between a device and the host, for any budget; core's forward pass runs on both.

    Raises:
        BackendError: the two cannot share a KV cache.
    """

    def __init__(self, file: ModelFile, device: Site, host: Site, planner: OffloadPlanner, context_len: int) -> None:
        shared = _shared_capabilities(device.backend, host.backend)
        limits = _limits(shared, context_len)
        self._whole = place_whole(file, device, context_len)
        self._limits, self._page_size, self._kv_types = limits, shared.page_sizes[0], shared.kv_types
        self._device_needs = _Needs(device, file, limits)
        self._host_needs = _Needs(host, file, replace(limits, max_logits=0))
        self._host, self._planner = host, planner
        self._size_bytes, self._num_layers = file.size_bytes, len(file.spec.layers)

    def place(self, budget_gib: float) -> Placement:
        """As many layers on the host as the budget buys, each for the file's size divided by their number.

        Raises:
            PluginError: the offload planner names layers that are not there.
        """
        layer_bytes = [self._size_bytes // self._num_layers] * self._num_layers
        layers = self._planner.plan(layer_bytes, math.ceil(budget_gib * _GIB)).host_layers
        if list(layers) != sorted(set(layers) & set(range(self._num_layers))):
            raise PluginError(f"the offload planner chose the layers {layers} of a model that has {self._num_layers}")
        if not layers:
            return self._whole
        others = [layer for layer in range(self._num_layers) if layer not in layers]
        on_host = HostPart(layers, self._host, self._host_needs.share(layers, with_ends=False))
        on_device = self._device_needs.share(others, with_ends=True)
        return Placement(self._limits, self._page_size, self._kv_types, on_device, on_host)

    def budgets_gib(self) -> Iterable[float]:
        """A budget for each number of layers, in GiB with three decimals, ascending."""
        for num_layers in range(1, self._num_layers + 1):
            yield math.ceil(1000 * num_layers * self._size_bytes / self._num_layers / _GIB) / 1000


def _limits(capabilities: Capabilities, context_len: int) -> StepLimits:
    return StepLimits(
        max_tokens=min(_TOKENS_PER_STEP, capabilities.max_tokens_per_step or _TOKENS_PER_STEP),
        max_logits=_LOGITS_PER_STEP,
        max_context_len=context_len,
    )


def _shared_capabilities(device: Backend, host: Backend) -> Capabilities:
    """What both can do, as the device prefers it."""
    one, other = device.capabilities, host.capabilities
    page_sizes = tuple(size for size in one.page_sizes if size in other.page_sizes)
    if not page_sizes:
        raise BackendError(
            f"no KV page size is known to both {device.name} {one.page_sizes} and {host.name} {other.page_sizes}, so "
            "that no layer can stay in CPU memory; leave --cpu-offload-gb out"
        )
    limits = [limit for limit in (one.max_tokens_per_step, other.max_tokens_per_step) if limit is not None]
    kv_types = tuple(kv_type for kv_type in one.kv_types if kv_type in other.kv_types)
    return replace(one, page_sizes=page_sizes, kv_types=kv_types, max_tokens_per_step=min(limits, default=None))


class _Needs:
    """What some of a model's layers take of a site's memory, on its kernels unless it is a host of layers."""

    def __init__(self, site: Site, file: ModelFile, limits: StepLimits) -> None:
        computes = site.device if isinstance(site.device, LayersHost) else site.device.make_kernels()
        needs = computes.memory_needs(file.spec, file.weights, limits)
        self._available_bytes, self._workspace_bytes = site.available_bytes, needs.workspace_bytes
        self._layer_bytes = [
            sum(needs.weights[name] for name in layer_shapes(file.spec, layer))
            for layer in range(len(file.spec.layers))
        ]
        self._outer_bytes = needs.weights_bytes - sum(self._layer_bytes)

    def share(self, layers: Sequence[int], *, with_ends: bool) -> MemoryShare:
        """Of these layers, with or without the embedding and the output head."""
        layers_bytes = sum(self._layer_bytes[layer] for layer in layers)
        outer_bytes = self._outer_bytes if with_ends else 0
        return MemoryShare(self._available_bytes, layers_bytes + outer_bytes, self._workspace_bytes)
