"""A moving thing: position, speed, heading."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

from layerscale_core.streams.fields import number, optional_timestamp
from layerscale_core.streams.figures import finite, mean
from layerscale_core.streams.line import line, number_text, time_text


class SpatialStream:
    """``layerscale_core.specs.StreamType`` for fixes ``x y z spd hdg`` with an optional ``timestamp``."""

    name = "spatial"

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fix with its declared fields only, numbers as floats."""
        return {
            "x": number(entry, "x"),
            "y": number(entry, "y"),
            "z": number(entry, "z"),
            "spd": number(entry, "spd"),
            "hdg": number(entry, "hdg"),
            **optional_timestamp(entry),
        }

    def render(self, entry: Mapping[str, Any]) -> str:
        """One line, e.g. ``Jan 2 14:30 x 12.5 y -3 z 0.4 speed 5.2 heading 270``."""
        return line(
            time_text(entry),
            f"x {number_text(entry['x'])} y {number_text(entry['y'])} z {number_text(entry['z'])}",
            f"speed {number_text(entry['spd'])} heading {number_text(entry['hdg'])}",
        )

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The newest fix, the length of the way through all, and the fastest turn between two in a row."""
        if not entries:
            return deepcopy(_EMPTY)
        newest = entries[-1]
        points = [(entry["x"], entry["y"], entry["z"]) for entry in entries]
        speeds = [entry["spd"] for entry in entries]
        return {
            "current_position": {axis: newest[axis] for axis in ("x", "y", "z")},
            "current_speed": newest["spd"],
            "current_heading": newest["hdg"],
            "total_distance": finite(sum((math.dist(start, end) for start, end in pairwise(points)), start=0.0)),
            "max_speed": max(speeds),
            "avg_speed": mean(speeds),
            "max_turn_rate": max((_turn_rate(before, after) for before, after in pairwise(entries)), default=0.0),
        }


def _turn_rate(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """The smaller angle between two headings, in degrees per second; per entry unless time is known to have passed."""
    turn: float = abs(after["hdg"] % 360 - before["hdg"] % 360)
    turn = min(turn, 360 - turn)
    if "timestamp" not in before or "timestamp" not in after:
        return turn
    seconds: int = after["timestamp"] - before["timestamp"]
    return turn / seconds if seconds > 0 else turn


_EMPTY: Mapping[str, Any] = {
    "current_position": {"x": 0.0, "y": 0.0, "z": 0.0},
    "current_speed": 0.0,
    "current_heading": 0.0,
    "total_distance": 0.0,
    "max_speed": 0.0,
    "avg_speed": 0.0,
    "max_turn_rate": 0.0,
}
