"""What LayerScale finds through the entry point."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.specs import Backend, hookimpl

LAYERSCALE_SPEC_VERSION = 1


@hookimpl
def layerscale_backends() -> Sequence[Backend]:
    """The simulated GPU; its module is imported here and not above, so that listing plugins stays cheap."""
    from layerscale_simulated_gpu.backend import SimulatedGpu  # noqa: PLC0415

    return (SimulatedGpu(),)
