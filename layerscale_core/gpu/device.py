"""A device that torch knows, as a backend hands it over: its memory, and the kernels that compute on it."""

from __future__ import annotations

from collections.abc import Callable

from layerscale_core.forward import KernelExecutor
from layerscale_core.models import ModelSpec
from layerscale_core.specs.backend import DeviceInfo
from layerscale_core.specs.executor import Executor, KVLayout
from layerscale_core.specs.kernels import Kernels
from layerscale_core.specs.memory import Allocator, MemoryNeeds, StepLimits
from layerscale_core.specs.model_format import WeightSource

_MAX_TOKENS = 64
"""Of a first step where nothing was planned."""


class TorchDevice:
    """``layerscale_core.specs.Device``.

    Args:
        inspect: describes the device, with its memory now.
        allocator: counts what the kernels keep on it.
        make_kernels: new ones, each for a model of its own.
        notices: see ``Device.notices``.
        first_steps: run on every new executor of a whole model, with the most tokens of a step that memory was planned
            for; None: nothing is gained by it.
    """

    def __init__(
        self,
        inspect: Callable[[], DeviceInfo],
        allocator: Allocator,
        make_kernels: Callable[[], Kernels],
        notices: tuple[str, ...] = (),
        first_steps: Callable[[Executor, KVLayout, int], None] | None = None,
    ) -> None:
        self._inspect = inspect
        self._allocator = allocator
        self._make_kernels = make_kernels
        self._notices = notices
        self._first_steps = first_steps
        self._max_tokens = _MAX_TOKENS

    @property
    def infos(self) -> tuple[DeviceInfo, ...]:
        """The one device."""
        return (self._inspect(),)

    @property
    def allocator(self) -> Allocator:
        """Its memory."""
        return self._allocator

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user must see at start."""
        return self._notices

    def memory_needs(self, spec: ModelSpec, weights: WeightSource, limits: StepLimits) -> MemoryNeeds:
        """What the kernels take; the executor's first steps are as large as was planned here."""
        self._max_tokens = limits.max_tokens
        return self._make_kernels().memory_needs(spec, weights, limits)

    def make_executor(self, spec: ModelSpec, weights: WeightSource, kv: KVLayout) -> Executor | None:
        """Core's forward pass over ``make_kernels``, after its first steps; None to have core make it."""
        if self._first_steps is None:
            return None
        executor = KernelExecutor(self._make_kernels(), spec, weights, kv)
        try:
            self._first_steps(executor, kv, self._max_tokens)
        except BaseException:
            executor.close()
            raise
        return executor

    def make_kernels(self) -> Kernels:
        """Kernels that have taken nothing yet."""
        return self._make_kernels()
