"""The plugin that brings AMD's GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.specs import Backend, hookimpl

LAYERSCALE_SPEC_VERSION = 1


@hookimpl
def layerscale_backends() -> Sequence[Backend]:
    """ROCm."""
    from layerscale_backend_rocm.vendor import AMD  # noqa: PLC0415 (listing plugins loads no backend)
    from layerscale_core.gpu.backend import GpuBackend  # noqa: PLC0415

    return (GpuBackend(AMD),)
