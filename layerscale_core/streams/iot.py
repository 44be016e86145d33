"""Sensor readings with the thresholds they should stay within."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from layerscale_core.streams.fields import number, optional_timestamp, text
from layerscale_core.streams.figures import mean
from layerscale_core.streams.line import line, name_text, number_text, time_text


class IotStream:
    """``layerscale_core.specs.StreamType`` for readings ``sid val lo hi`` with an optional ``timestamp``."""

    name = "iot"

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """The reading with its declared fields only, numbers as floats."""
        return {
            "sid": text(entry, "sid"),
            "val": number(entry, "val"),
            "lo": number(entry, "lo"),
            "hi": number(entry, "hi"),
            **optional_timestamp(entry),
        }

    def render(self, entry: Mapping[str, Any]) -> str:
        """One line, e.g. ``Jan 2 14:30 boiler-3 91.5 above 20 to 80``; small models are poor at comparing numbers."""
        return line(
            time_text(entry),
            name_text(entry["sid"]),
            f"{number_text(entry['val'])} {_side(entry)} {number_text(entry['lo'])} to {number_text(entry['hi'])}",
        )

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The newest reading, the range of all sensors' readings, and how many are outside their thresholds."""
        if not entries:
            return dict(_EMPTY)
        values = [entry["val"] for entry in entries]
        num_breaches = sum(_side(entry) != "within" for entry in entries)
        return {
            "last_sensor": entries[-1]["sid"],
            "last_value": values[-1],
            "min_value": min(values),
            "max_value": max(values),
            "avg_value": mean(values),
            "threshold_breaches": num_breaches,
            "breach_rate": num_breaches / len(entries),
        }


def _side(entry: Mapping[str, Any]) -> Literal["below", "within", "above"]:
    """On which side of its thresholds a reading is; equal to one is within."""
    if entry["val"] < entry["lo"]:
        return "below"
    return "above" if entry["val"] > entry["hi"] else "within"


_EMPTY: Mapping[str, Any] = {
    "last_sensor": "",
    "last_value": 0.0,
    "min_value": 0.0,
    "max_value": 0.0,
    "avg_value": 0.0,
    "threshold_breaches": 0,
    "breach_rate": 0.0,
}
