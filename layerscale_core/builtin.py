"""The built-in plugin: core's own defaults, registered as an outsider's would be.

``trylast`` lets every other plugin answer first.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.specs import (
    Backend,
    KVLayout,
    KVPool,
    LicenseVerifier,
    ModelFile,
    ModelFormat,
    OffloadPlanner,
    SchedulerPolicy,
    StreamType,
    hookimpl,
)

LAYERSCALE_SPEC_VERSION = 1

# Imports stand inside the hooks: listing plugins loads none of what they bring.


@hookimpl(trylast=True)
def layerscale_model_formats() -> Sequence[ModelFormat]:
    """GGUF, ONNX graphs, and folders of safetensors."""
    from layerscale_core.formats import GgufFormat, OnnxFormat, SafetensorsFormat  # noqa: PLC0415

    # A folder with a graph and no safetensors has a config.json too, which is all that the last one looks for.
    return (GgufFormat(), OnnxFormat(), SafetensorsFormat())


@hookimpl(trylast=True)
def layerscale_backend_of_model(model: ModelFile) -> Backend | None:
    """ONNX graphs are run by onnxruntime."""
    from layerscale_core.formats.onnx import OnnxBackend, OnnxModelFile  # noqa: PLC0415

    return OnnxBackend(model) if isinstance(model, OnnxModelFile) else None


@hookimpl(trylast=True)
def layerscale_stream_types() -> Sequence[StreamType]:
    """Market bars, sensors, positions, events, vital signs."""
    from layerscale_core.streams import (  # noqa: PLC0415
        EventStream,
        IotStream,
        OhlcvStream,
        SpatialStream,
        VitalsStream,
    )

    return (OhlcvStream(), IotStream(), SpatialStream(), EventStream(), VitalsStream())


@hookimpl(trylast=True)
def layerscale_make_kv_pool(layout: KVLayout) -> KVPool:
    """Reference-counted pages."""
    from layerscale_core.engine.kv_pool import PagedKVPool  # noqa: PLC0415

    return PagedKVPool(layout.num_pages, layout.page_size, layout.num_session_pages)


@hookimpl(trylast=True)
def layerscale_make_scheduler_policy() -> SchedulerPolicy:
    """Decode first, prompts share the rest."""
    from layerscale_core.engine.scheduler import FairPolicy  # noqa: PLC0415

    return FairPolicy()


@hookimpl(trylast=True)
def layerscale_make_offload_planner() -> OffloadPlanner:
    """Whole layers, the first of the model."""
    from layerscale_core.offload import FirstLayersPlanner  # noqa: PLC0415

    return FirstLayersPlanner()


@hookimpl(trylast=True)
def layerscale_license_verifiers() -> Sequence[LicenseVerifier]:
    """Signed keys."""
    from layerscale_core.licensing import SignedKeyVerifier, authority_folders  # noqa: PLC0415

    return (SignedKeyVerifier(authority_folders()),)
