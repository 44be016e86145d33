"""What a vendor supplies: a backend that loads a device, with its allocator, and kernels or a whole executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from layerscale_core.models import ModelSpec
from layerscale_core.specs.executor import Executor, HostedLayers, KVLayout, KVType
from layerscale_core.specs.kernels import Kernels
from layerscale_core.specs.memory import Allocator, MemoryNeeds, StepLimits
from layerscale_core.specs.model_format import WeightSource


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend can serve on this machine.

    Attributes:
        score: 0 = cannot; the highest score is chosen. The embedded CPU backend says 10, a GPU backend with a usable
            device 100. A tie at the top is an error that names both.
        reason: one line for a person: what was found, or what is missing.
    """

    score: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device as ``layerscale doctor`` and ``/v1/models`` show it; sizes in bytes."""

    name: str
    description: str
    total_memory_bytes: int
    free_memory_bytes: int
    is_accelerator: bool


class ActivationType(StrEnum):
    """What activations are rounded to, a scale for each group, where quantised weights are multiplied in integers."""

    INT8 = "int8"
    INT16 = "int16"

    @property
    def num_bits(self) -> int:
        """Bits of a code."""
        return int(self.value.removeprefix("int"))


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend declares, so that nothing is discovered by a crash.

    Attributes:
        page_sizes: KV page sizes in tokens its kernels accept, preferred first.
        kv_types: KV cache precisions its kernels read.
        activation_types: what its kernels can round activations to, the default first; empty = they multiply in floats.
        max_tokens_per_step: most tokens one step may compute; None = no limit of its own.
        is_host: computes with the host's processor from the host's memory. Layers that another device offloads are
            computed by such a backend; from it there is nothing to offload.
    """

    page_sizes: tuple[int, ...] = (16,)
    kv_types: tuple[KVType, ...] = (KVType.FP16,)
    activation_types: tuple[ActivationType, ...] = ()
    max_tokens_per_step: int | None = None
    is_host: bool = False


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What the user asked of the backend.

    Attributes:
        num_threads: host threads that compute; None = the backend's choice.
        activation_type: one of those it declares; None = the first.
    """

    num_threads: int | None = None
    activation_type: ActivationType | None = None


class Device(Protocol):
    """A loaded backend. ``make_executor`` may return None: core then builds its own over ``make_kernels()``."""

    @property
    def infos(self) -> tuple[DeviceInfo, ...]:
        """The devices in use."""
        ...

    @property
    def allocator(self) -> Allocator:
        """The memory of the device that holds the KV cache."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines a user must see at start: what is slower or missing here, and the remedy."""
        ...

    def memory_needs(self, spec: ModelSpec, weights: WeightSource, limits: StepLimits) -> MemoryNeeds:
        """What ``make_executor`` would take, or core's own over ``make_kernels()`` where it returns None.

        The same promises as ``Kernels.memory_needs``.
        """
        ...

    def make_executor(self, spec: ModelSpec, weights: WeightSource, kv: KVLayout) -> Executor | None:
        """Load the weights, commit the KV cache, and return an executor; or None to have core do it.

        Not asked for a model of which layers stay on the host: core's own executor computes it.

        Raises:
            OutOfMemoryError: the device cannot hold weights and cache.
            UnsupportedModelError: the description asks for something this backend cannot compute.
        """
        ...

    def make_kernels(self) -> Kernels:
        """The kernels for core's own forward pass. Nothing is taken of the device before they are used."""
        ...


@runtime_checkable
class LayersHost(Protocol):
    """A ``Device`` of a backend that ``is_host`` and computes others' offloaded layers by more than its kernels.

    Optional: without it, core runs such layers over ``make_kernels()``.
    """

    def make_layers(
        self, spec: ModelSpec, weights: WeightSource, kv: KVLayout, layers: Sequence[int]
    ) -> HostedLayers | None:
        """Load some layers' weights, commit their KV cache, and return what computes them; or None to have core do it.

        What they take is their part of what ``Device.memory_needs`` says.

        Args:
            kv: of these layers alone.
            layers: indices, ascending; at least one.

        Raises:
            OutOfMemoryError: the host cannot hold weights and cache.
            UnsupportedModelError: the description asks for something this backend cannot compute.
        """
        ...


class Backend(Protocol):
    """One vendor's way to compute. Constructing it and ``probe`` import nothing heavy and touch no device."""

    @property
    def name(self) -> str:
        """The name for ``--backend``: lower case, unique."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Declared, and the same before and after ``load``."""
        ...

    def probe(self) -> Probe:
        """Whether it can serve here. Never raises."""
        ...

    def load(self, options: BackendOptions) -> Device:
        """Import what is heavy and take the device.

        Raises:
            BackendError: with the cause in one line.
        """
        ...
