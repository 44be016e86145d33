"""What LayerScale finds through the entry point."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.specs import StreamType, hookimpl

LAYERSCALE_SPEC_VERSION = 1


@hookimpl
def layerscale_stream_types() -> Sequence[StreamType]:
    """Weather; its module is imported here and not above, so that listing plugins stays cheap."""
    from layerscale_weather_stream.weather import WeatherStream  # noqa: PLC0415

    return (WeatherStream(),)
