"""The plugin that brings NVIDIA's GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.specs import Backend, hookimpl

LAYERSCALE_SPEC_VERSION = 1


@hookimpl
def layerscale_backends() -> Sequence[Backend]:
    """CUDA."""
    from layerscale_backend_cuda.vendor import NVIDIA  # noqa: PLC0415 (listing plugins loads no backend)
    from layerscale_core.gpu.backend import GpuBackend  # noqa: PLC0415

    return (GpuBackend(NVIDIA),)
