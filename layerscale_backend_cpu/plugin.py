"""The plugin that brings the embedded CPU backend."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.specs import Backend, hookimpl

LAYERSCALE_SPEC_VERSION = 1


@hookimpl
def layerscale_backends() -> Sequence[Backend]:
    """The CPU."""
    from layerscale_backend_cpu.backend import CpuBackend  # noqa: PLC0415 (listing plugins loads no backend)

    return (CpuBackend(),)
