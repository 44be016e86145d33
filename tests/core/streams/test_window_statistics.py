"""Statistics of windows: by hand, against plain formulas, and at the extremes."""

from __future__ import annotations

import cmath
import json
import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.stream_entries import EXAMPLES, NAMES, STREAM_TYPES, entries, few_values

Entry = dict[str, Any]


def statistics(name: str, *changes: Entry) -> Any:
    """The statistics of a window of examples, each with some fields changed."""
    stream_type = STREAM_TYPES[name]
    return stream_type.statistics([stream_type.validate(EXAMPLES[name] | change) for change in changes])


def column(window: list[Entry], field: str) -> list[Any]:
    return [entry[field] for entry in window]


class TestByHand:
    """Windows whose figures can be checked in the head."""

    def test_bars(self) -> None:
        bars = [{"o": 10, "h": 15, "l": 8, "c": 12, "v": 5}, {"h": 20, "l": 8, "c": 13, "v": 7}]
        assert statistics("ohlcv", *bars, {"h": 20, "l": 9, "c": 14, "v": 6}) == {
            "max_high": 20,
            "max_high_index": 1,
            "min_low": 8,
            "min_low_index": 0,
            "max_volume": 7,
            "first_open": 10,
            "last_close": 14,
            "avg_close": 13,
            "change": 4,
            "change_pct": 40,
        }

    def test_an_open_of_zero_has_no_percentage(self) -> None:
        assert statistics("ohlcv", {"o": 0})["change_pct"] == 0.0

    def test_readings(self) -> None:
        readings = [{"sid": "a", "val": 20}, {"sid": "b", "val": 19}, {"sid": "a", "val": 80}, {"sid": "c", "val": 81}]
        assert statistics("iot", *readings) == {
            "last_sensor": "c",
            "last_value": 81,
            "min_value": 19,
            "max_value": 81,
            "avg_value": 50,
            "threshold_breaches": 2,
            "breach_rate": 0.5,
        }

    def test_a_way_through_space(self) -> None:
        fixes = [
            {"x": 0, "y": 0, "z": 0, "spd": 1, "hdg": 350},
            {"x": 3, "y": 4, "z": 0, "spd": 6, "hdg": 10},
            {"x": 3, "y": 4, "z": 2, "spd": 2, "hdg": 0},
        ]
        assert statistics("spatial", *fixes) == {
            "current_position": {"x": 3, "y": 4, "z": 2},
            "current_speed": 2,
            "current_heading": 0,
            "total_distance": 7,
            "max_speed": 6,
            "avg_speed": 3,
            "max_turn_rate": 20,
        }

    @pytest.mark.parametrize(
        ("before", "after", "rate"),
        [
            ({"hdg": 0, "timestamp": 10}, {"hdg": 90, "timestamp": 13}, 30),
            ({"hdg": 0, "timestamp": 10}, {"hdg": 90, "timestamp": 10}, 90),  # time stands still
            ({"hdg": 0, "timestamp": 10}, {"hdg": 90, "timestamp": 5}, 90),  # time runs backwards
            ({"hdg": 0, "timestamp": 10}, {"hdg": 90}, 90),
            ({"hdg": 0}, {"hdg": 90, "timestamp": 12}, 90),
            ({"hdg": 0}, {"hdg": 180}, 180),
            ({"hdg": 10}, {"hdg": -10}, 20),
            ({"hdg": 725}, {"hdg": 0}, 5),
        ],
    )
    def test_a_turn_is_the_shorter_way_round_per_second_where_time_passes(
        self, before: Entry, after: Entry, rate: float
    ) -> None:
        assert statistics("spatial", before, after)["max_turn_rate"] == rate

    def test_one_fix_has_no_way_and_no_turn(self) -> None:
        one = statistics("spatial", {})
        assert (one["total_distance"], one["max_turn_rate"]) == (0.0, 0.0)

    def test_events(self) -> None:
        events = [
            {"src": "a", "cat": "late", "sev": 3, "cnt": 2},
            {"src": "b", "cat": "lost", "sev": 4, "cnt": 5},
            {"src": "a", "cat": "late", "sev": 5, "cnt": 3},
        ]
        assert statistics("event", *events) == {
            "total_event_count": 10,
            "max_severity": 5,
            "critical_events": 2,
            "unique_sources": 2,
            "unique_categories": 2,
            "top_category": "late",  # as many as the other, and seen first
            "top_category_count": 5,
        }

    def test_vital_signs(self) -> None:
        signs = [
            {"hr": 101, "spo2": 89, "temp": 38.1},
            {"hr": 130, "spo2": 90, "temp": 38.0},
            {"hr": 100, "spo2": 89.9, "temp": 39.5},
            {"hr": 59, "spo2": 88, "temp": 37.0},
            {"hr": 110, "spo2": 95, "temp": 36.0, "bp_s": 119.6, "bp_d": 70.3},
        ]
        answer = statistics("vitals", *signs)
        assert answer["current"].pop("map") == pytest.approx((119.6 + 2 * 70.3) / 3)
        assert answer.pop("avg_map") == pytest.approx((4 * 280 / 3 + (119.6 + 2 * 70.3) / 3) / 5)
        assert answer == {
            "current": {"hr": 110, "bp": "120/70", "spo2": 95, "temp": 36},
            "avg_heart_rate": 100,
            "min_spo2": 88,
            "max_temp": 39.5,
            "alerts": {
                "tachycardia_episodes": 2,
                "bradycardia_episodes": 1,
                "hypoxia_episodes": 2,
                "fever_episodes": 2,
            },
        }


def plain_ohlcv(window: list[Entry]) -> Entry:
    first, last = window[0]["o"], window[-1]["c"]
    max_high, min_low = sorted(column(window, "h"))[-1], sorted(column(window, "l"))[0]
    return {
        "max_high": max_high,
        "max_high_index": next(i for i, entry in enumerate(window) if entry["h"] == max_high),
        "min_low": min_low,
        "min_low_index": next(i for i, entry in enumerate(window) if entry["l"] == min_low),
        "max_volume": sorted(column(window, "v"))[-1],
        "first_open": first,
        "last_close": last,
        "avg_close": fmean(column(window, "c")),
        "change": last - first,
        "change_pct": 0.0 if first == 0 else (last / first - 1) * 100,
    }


def plain_iot(window: list[Entry]) -> Entry:
    values = column(window, "val")
    breaches = [entry for entry in window if entry["val"] < entry["lo"] or entry["val"] > entry["hi"]]
    return {
        "last_sensor": window[-1]["sid"],
        "last_value": values[-1],
        "min_value": sorted(values)[0],
        "max_value": sorted(values)[-1],
        "avg_value": fmean(values),
        "threshold_breaches": len(breaches),
        "breach_rate": len(breaches) / len(window),
    }


def plain_spatial(window: list[Entry]) -> Entry:
    distance, rates = 0.0, [0.0]
    for i in range(1, len(window)):
        a, b = window[i - 1], window[i]
        distance += math.sqrt(sum((b[axis] - a[axis]) ** 2 for axis in "xyz"))
        turn = abs(math.degrees(cmath.phase(cmath.rect(1, math.radians(b["hdg"] - a["hdg"])))))
        timed = "timestamp" in a and "timestamp" in b and b["timestamp"] > a["timestamp"]
        rates.append(turn / (b["timestamp"] - a["timestamp"]) if timed else turn)
    newest = window[-1]
    return {
        "current_position": {"x": newest["x"], "y": newest["y"], "z": newest["z"]},
        "current_speed": newest["spd"],
        "current_heading": newest["hdg"],
        "total_distance": distance,
        "max_speed": sorted(column(window, "spd"))[-1],
        "avg_speed": fmean(column(window, "spd")),
        "max_turn_rate": sorted(rates)[-1],
    }


def plain_event(window: list[Entry]) -> Entry:
    seen = list(dict.fromkeys(column(window, "cat")))
    sums = [sum(entry["cnt"] for entry in window if entry["cat"] == category) for category in seen]
    return {
        "total_event_count": sum(column(window, "cnt")),
        "max_severity": sorted(column(window, "sev"))[-1],
        "critical_events": len([entry for entry in window if entry["sev"] >= 4]),
        "unique_sources": len(set(column(window, "src"))),
        "unique_categories": len(seen),
        "top_category": seen[sums.index(max(sums))],
        "top_category_count": max(sums),
    }


def plain_vitals(window: list[Entry]) -> Entry:
    def num_episodes(is_alarming: Callable[[Entry], bool]) -> int:
        return len("".join("x" if is_alarming(entry) else " " for entry in window).split())

    newest = window[-1]
    return {
        "current": {
            "hr": newest["hr"],
            "bp": f"{newest['bp_s']:.0f}/{newest['bp_d']:.0f}",
            "spo2": newest["spo2"],
            "temp": newest["temp"],
            "map": newest["bp_s"] / 3 + newest["bp_d"] * 2 / 3,
        },
        "avg_heart_rate": fmean(column(window, "hr")),
        "avg_map": fmean(column(window, "bp_s")) / 3 + fmean(column(window, "bp_d")) * 2 / 3,
        "min_spo2": sorted(column(window, "spo2"))[0],
        "max_temp": sorted(column(window, "temp"))[-1],
        "alerts": {
            "tachycardia_episodes": num_episodes(lambda entry: entry["hr"] > 100),
            "bradycardia_episodes": num_episodes(lambda entry: entry["hr"] < 60),
            "hypoxia_episodes": num_episodes(lambda entry: entry["spo2"] < 90),
            "fever_episodes": num_episodes(lambda entry: entry["temp"] > 38),
        },
    }


PLAIN = {
    "ohlcv": plain_ohlcv,
    "iot": plain_iot,
    "spatial": plain_spatial,
    "event": plain_event,
    "vitals": plain_vitals,
}


def assert_close(actual: Any, expected: Any) -> None:
    """Equal fields in the same order, types and texts; numbers but for the order of summation."""
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for name, value in expected.items():
            assert_close(actual[name], value)
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=1e-9, abs=1e-9)
    else:
        assert actual == expected


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_window_has_the_figures_of_the_plain_formulas(name: str, data: st.DataObject) -> None:
    window = data.draw(st.lists(few_values(name), min_size=1, max_size=12))
    assert_close(STREAM_TYPES[name].statistics(window), PLAIN[name](window))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_figures_are_finite_whatever_the_entries(name: str, data: st.DataObject) -> None:
    window = data.draw(st.lists(entries(name), max_size=5))
    json.dumps(STREAM_TYPES[name].statistics(window), allow_nan=False)


@settings(deadline=None, max_examples=100)
@given(st.tuples(*[st.floats(-1e4, 1e4)] * 2))
def test_a_turn_is_between_none_and_half_a_circle(headings: tuple[float, float]) -> None:
    rate = statistics("spatial", *({"hdg": heading} for heading in headings))["max_turn_rate"]
    assert 0.0 <= rate <= 180.0
