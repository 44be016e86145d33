"""The weather stream keeps LayerScale's contract of a stream type, and says what it is meant to say."""

from __future__ import annotations

import pytest
from layerscale_weather_stream import plugin
from layerscale_weather_stream.weather import WeatherStream

from layerscale_core.conformance import StreamTypeContract
from layerscale_core.errors import InvalidRequestError
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import StreamType

REYKJAVIK = {"station": "Reykjavik", "temp": -1.5, "wind": 34.0, "rain": 0.2, "timestamp": 1704205800}
LISBON = {"station": "Lisbon", "temp": 14.5, "wind": 12.0, "rain": 1.8, "timestamp": 1704205860}


class TestWeather(StreamTypeContract):
    """Everything that a stream type promises."""

    entries = (REYKJAVIK, LISBON, {"station": "", "temp": 0, "wind": 0, "rain": 0})
    required = ("station", "temp", "wind", "rain")

    def make_stream_type(self) -> StreamType:
        return WeatherStream()


def test_core_accepts_the_plugin() -> None:
    plugins = PluginRegistry()
    assert plugins.register(plugin, "weather-stream", "test").cause is None
    assert list(plugins.stream_types()) == ["weather"]


def test_an_observation_is_one_line() -> None:
    assert WeatherStream().render(REYKJAVIK) == "Jan 2 14:30 Reykjavik -1.5 C wind 34 rain 0.2"


@pytest.mark.parametrize("field", ["wind", "rain"])
def test_neither_wind_nor_rain_is_negative(field: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        WeatherStream().validate(REYKJAVIK | {field: -0.1})
    assert refusal.value.param == field


def test_statistics_of_a_window() -> None:
    assert WeatherStream().statistics([REYKJAVIK, LISBON]) == {
        "min_temp": -1.5,
        "max_temp": 14.5,
        "avg_temp": 6.5,
        "max_wind": 34.0,
        "total_rain": 2.0,
        "num_stations": 2,
    }
