"""Offloaded layers on the native kernels: one call for those that are side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscale_backend_cpu.native_executor import NativeModel, refusals_are_step_errors
from layerscale_core.specs import StepBatch


class NativeLayers(NativeModel):
    """``layerscale_core.specs.HostedLayers`` over the native kernels; which layers must be given."""

    def run(self, x: NDArray[np.float32], batch: StepBatch, layers: range) -> NDArray[np.float32]:
        """See ``layerscale_core.specs.HostedLayers.run``."""
        with refusals_are_step_errors():
            result: NDArray[np.float32] = self._executor.run_layers(batch, x, layers.start, layers.stop)
        return result
