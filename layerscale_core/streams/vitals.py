"""A patient's vital signs: heart rate, blood pressure, oxygen saturation, temperature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import groupby
from typing import Any

from layerscale_core.streams.fields import number, optional_timestamp
from layerscale_core.streams.figures import finite, mean
from layerscale_core.streams.line import line, number_text, time_text

TACHYCARDIA_ABOVE = 100.0
BRADYCARDIA_BELOW = 60.0
"""Heart beats per minute."""

HYPOXIA_BELOW = 90.0
"""Oxygen saturation, in per cent."""

FEVER_ABOVE = 38.0
"""Degrees Celsius."""


class VitalsStream:
    """``layerscale_core.specs.StreamType`` for signs ``hr bp_s bp_d spo2 temp`` with an optional ``timestamp``."""

    name = "vitals"

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """The signs with their declared fields only, numbers as floats."""
        return {
            "hr": number(entry, "hr"),
            "bp_s": number(entry, "bp_s"),
            "bp_d": number(entry, "bp_d"),
            "spo2": number(entry, "spo2"),
            "temp": number(entry, "temp"),
            **optional_timestamp(entry),
        }

    def render(self, entry: Mapping[str, Any]) -> str:
        """One line, e.g. ``Jan 2 14:30 heart rate 72 pressure 120/80 oxygen 98% temperature 36.8 C``."""
        return line(
            time_text(entry),
            f"heart rate {number_text(entry['hr'])}",
            f"pressure {number_text(entry['bp_s'])}/{number_text(entry['bp_d'])}",
            f"oxygen {number_text(entry['spo2'])}% temperature {number_text(entry['temp'])} C",
        )

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The newest signs, averages and extremes, and how often each alarming state was entered."""
        if not entries:
            return deepcopy(_EMPTY)
        newest = entries[-1]
        heart_rates = [entry["hr"] for entry in entries]
        saturations = [entry["spo2"] for entry in entries]
        temperatures = [entry["temp"] for entry in entries]
        return {
            "current": {
                "hr": newest["hr"],
                "bp": f"{round(newest['bp_s'])}/{round(newest['bp_d'])}",
                "spo2": newest["spo2"],
                "temp": newest["temp"],
                "map": finite(_mean_arterial_pressure(newest)),
            },
            "avg_heart_rate": mean(heart_rates),
            "avg_map": mean([_mean_arterial_pressure(entry) for entry in entries]),
            "min_spo2": min(saturations),
            "max_temp": max(temperatures),
            "alerts": {
                "tachycardia_episodes": _num_runs(rate > TACHYCARDIA_ABOVE for rate in heart_rates),
                "bradycardia_episodes": _num_runs(rate < BRADYCARDIA_BELOW for rate in heart_rates),
                "hypoxia_episodes": _num_runs(saturation < HYPOXIA_BELOW for saturation in saturations),
                "fever_episodes": _num_runs(temperature > FEVER_ABOVE for temperature in temperatures),
            },
        }


def _mean_arterial_pressure(entry: Mapping[str, Any]) -> float:
    pressure: float = (entry["bp_s"] + 2 * entry["bp_d"]) / 3
    return pressure


def _num_runs(states: Iterable[bool]) -> int:
    """How many unbroken runs of true there are."""
    return sum(is_true for is_true, _ in groupby(states))


_EMPTY: Mapping[str, Any] = {
    "current": {"hr": 0.0, "bp": "", "spo2": 0.0, "temp": 0.0, "map": 0.0},
    "avg_heart_rate": 0.0,
    "avg_map": 0.0,
    "min_spo2": 0.0,
    "max_temp": 0.0,
    "alerts": {
        "tachycardia_episodes": 0,
        "bradycardia_episodes": 0,
        "hypoxia_episodes": 0,
        "fever_episodes": 0,
    },
}
