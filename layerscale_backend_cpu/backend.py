"""The embedded CPU backend: native kernels where they were compiled, numpy everywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence

from layerscale_backend_cpu.native_executor import (
    ISA_VARIABLE,
    PAGE_SIZE,
    NativeExecutor,
    NativeModel,
    native_isa,
    supported_levels,
)
from layerscale_backend_cpu.native_layers import NativeLayers
from layerscale_backend_cpu.native_memory import native_memory_needs
from layerscale_core.errors import BackendError
from layerscale_core.host import inspect_host
from layerscale_core.host_device import HostDevice
from layerscale_core.models import ModelSpec
from layerscale_core.specs import (
    ActivationType,
    Allocator,
    BackendOptions,
    Capabilities,
    Executor,
    HostedLayers,
    Kernels,
    KVLayout,
    KVType,
    MemoryNeeds,
    Probe,
    StepLimits,
    WeightSource,
)

PROBE_SCORE = 10
"""Above "cannot", below every accelerator."""

_NOT_COMPILED = (
    "the native CPU kernels are not compiled: answers come many times slower, and each weight takes 4 bytes; "
    "install a C++ compiler and reinstall layerscale-engine"
)
_NOT_LOADED = (
    "the native CPU kernels for {best}, which this processor has, are missing or cannot be loaded: those for {isa} are "
    "slower; reinstall layerscale-engine"
)
_SWITCHED_OFF = (
    f"{ISA_VARIABLE}=numpy switches the native CPU kernels off: answers come many times slower, and each weight takes "
    "4 bytes; unset it"
)
_THREADS_IGNORED = "numpy takes no number of threads from here; set OPENBLAS_NUM_THREADS or its like"
_ACTIVATIONS_IGNORED = "numpy multiplies in floats: no type of activations is chosen from here"


class CpuBackend:
    """``layerscale_core.specs.Backend`` for the host's processor."""

    name = "cpu"
    capabilities = Capabilities(
        page_sizes=(PAGE_SIZE,), kv_types=tuple(KVType), activation_types=tuple(ActivationType), is_host=True
    )

    def probe(self) -> Probe:
        """Serves everywhere, unless the environment forces an instruction set that is not there."""
        try:
            isa = native_isa()
        except BackendError as error:
            return Probe(score=0, reason=str(error))
        return Probe(PROBE_SCORE, f"{isa} kernels" if isa else "numpy, no compiled kernels")

    def load(self, options: BackendOptions) -> CpuDevice:
        """Look at the machine and choose the number of threads."""
        return CpuDevice(native_isa(), options)


class CpuDevice(HostDevice):
    """``layerscale_core.specs.Device``: the host's processor and memory.

    Args:
        isa: the native kernels' level; None to compute with numpy.
    """

    def __init__(self, isa: str | None, options: BackendOptions) -> None:
        host = inspect_host()
        self._isa = isa
        self._options = options
        self._num_threads = options.num_threads or host.num_usable_cpus
        self._activation_type = options.activation_type or ActivationType.INT8
        native = f"{isa} kernels, {self._num_threads} threads, {self._activation_type} activations"
        kernels = native if isa else "numpy"
        super().__init__(host, name="cpu", description=f"{host.cpu_name} ({host.architecture}), {kernels}")

    @property
    def notices(self) -> tuple[str, ...]:
        """What is slow here, and the remedy."""
        if self._isa is not None:
            best = supported_levels()[0]
            is_slower = self._isa != best and ISA_VARIABLE not in os.environ
            return (_NOT_LOADED.format(best=best, isa=self._isa),) if is_slower else ()
        lines = [_SWITCHED_OFF if os.environ.get(ISA_VARIABLE) == "numpy" else _NOT_COMPILED]
        if self._options.num_threads is not None:
            lines.append(_THREADS_IGNORED)
        if self._options.activation_type is not None:
            lines.append(_ACTIVATIONS_IGNORED)
        return tuple(lines)

    def memory_needs(self, spec: ModelSpec, weights: WeightSource, limits: StepLimits) -> MemoryNeeds:
        """The packed layout with native kernels, four bytes a weight with numpy."""
        if self._isa is not None:
            return native_memory_needs(spec, weights, limits)
        return self.make_kernels().memory_needs(spec, weights, limits)

    def make_executor(self, spec: ModelSpec, weights: WeightSource, kv: KVLayout) -> Executor | None:
        """The native executor; None without native kernels."""
        if self._isa is None:
            return None
        return _CountedExecutor(
            self._allocator, spec, weights, kv, num_threads=self._num_threads, activation_type=self._activation_type
        )

    def make_layers(
        self, spec: ModelSpec, weights: WeightSource, kv: KVLayout, layers: Sequence[int]
    ) -> HostedLayers | None:
        """On the native kernels; None without them."""
        if self._isa is None:
            return None
        return _CountedLayers(
            self._allocator,
            spec,
            weights,
            kv,
            num_threads=self._num_threads,
            activation_type=self._activation_type,
            layers=layers,
        )

    def make_kernels(self) -> Kernels:
        """Numpy's kernels."""
        from layerscale_core.reference import ReferenceKernels  # noqa: PLC0415

        return ReferenceKernels(self._allocator)


class _Counted(NativeModel):
    """The memory of what is on the native kernels, counted from loading to closing."""

    def __init__(
        self,
        allocator: Allocator,
        spec: ModelSpec,
        weights: WeightSource,
        kv: KVLayout,
        *,
        num_threads: int,
        activation_type: ActivationType,
        layers: Sequence[int] | None = None,
    ) -> None:
        self._allocator = allocator
        self._counted: list[tuple[int, str]] = []
        self._count(kv.total_bytes, "KV cache")
        try:
            super().__init__(spec, weights, kv, num_threads, activation_type, layers=layers)
            self._count(self.allocated_bytes - kv.total_bytes, "weights")
        except BaseException:
            self.close()
            raise

    def _count(self, num_bytes: int, label: str) -> None:
        self._allocator.reserve(num_bytes, label)
        self._counted.append((num_bytes, label))

    def close(self) -> None:
        """Free weights and cache, and end the threads. Idempotent."""
        super().close()
        while self._counted:
            self._allocator.release(*self._counted.pop())


class _CountedExecutor(_Counted, NativeExecutor):
    """All of a model."""


class _CountedLayers(_Counted, NativeLayers):
    """Some of its layers."""
