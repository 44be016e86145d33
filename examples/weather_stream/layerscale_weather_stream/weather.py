"""Observations of weather stations: temperature, wind, rain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerscale_core.errors import InvalidRequestError
from layerscale_core.streams.fields import number, optional_timestamp, text
from layerscale_core.streams.figures import finite, mean
from layerscale_core.streams.line import line, name_text, number_text, time_text


class WeatherStream:
    """``layerscale_core.specs.StreamType`` for ``station temp wind rain`` with an optional ``timestamp``."""

    name = "weather"

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """The observation: degrees Celsius, kilometres per hour, and millimetres since the one before."""
        observation = {
            "station": text(entry, "station"),
            "temp": number(entry, "temp"),
            "wind": number(entry, "wind"),
            "rain": number(entry, "rain"),
            **optional_timestamp(entry),
        }
        for field in ("wind", "rain"):
            if observation[field] < 0:
                raise InvalidRequestError(f"entry field {field!r} must not be negative", param=field)
        return observation

    def render(self, entry: Mapping[str, Any]) -> str:
        """One line, e.g. ``Jan 2 14:30 Reykjavik -1.5 C wind 34 rain 0.2``."""
        return line(
            time_text(entry),
            name_text(entry["station"]),
            f"{number_text(entry['temp'])} C wind {number_text(entry['wind'])} rain {number_text(entry['rain'])}",
        )

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Over all stations: the temperatures' range and mean, the strongest wind, and how much rain fell."""
        temperatures = [entry["temp"] for entry in entries]
        return {
            "min_temp": min(temperatures, default=0.0),
            "max_temp": max(temperatures, default=0.0),
            "avg_temp": mean(temperatures) if entries else 0.0,
            "max_wind": max((entry["wind"] for entry in entries), default=0.0),
            "total_rain": finite(sum((entry["rain"] for entry in entries), start=0.0)),
            "num_stations": len({entry["station"] for entry in entries}),
        }
