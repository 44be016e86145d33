"""Market bars: open, high, low, close, volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerscale_core.streams.fields import finite, name_text, number, number_text, optional_name, optional_timestamp

_NUMBERS = ("o", "h", "l", "c", "v")


class OhlcvStream:
    """``layerscale_core.specs.StreamType`` for bars ``o h l c v`` with an optional ``sym`` and ``timestamp``."""

    name = "ohlcv"

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """The bar with its declared fields only, numbers as floats."""
        numbers = {name: number(entry, name) for name in _NUMBERS}
        return numbers | optional_name(entry, "sym") | optional_timestamp(entry)

    def render(self, entry: Mapping[str, Any]) -> str:
        """One line, e.g. ``1704205800 ACME o=10 h=12.5 l=9.75 c=11 v=1200``."""
        words = [str(entry["timestamp"])] if "timestamp" in entry else []
        if "sym" in entry:
            words.append(name_text(entry["sym"]))
        return " ".join(words + [f"{name}={number_text(entry[name])}" for name in _NUMBERS])

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Extremes with the index of their first occurrence, and the change from the first open to the last close."""
        if not entries:
            return dict(_EMPTY)
        highs = [entry["h"] for entry in entries]
        lows = [entry["l"] for entry in entries]
        first_open, last_close = entries[0]["o"], entries[-1]["c"]
        change = last_close - first_open
        return {
            "max_high": max(highs),
            "max_high_index": highs.index(max(highs)),
            "min_low": min(lows),
            "min_low_index": lows.index(min(lows)),
            "max_volume": max(entry["v"] for entry in entries),
            "first_open": first_open,
            "last_close": last_close,
            "avg_close": finite(sum(entry["c"] for entry in entries) / len(entries)),
            "change": finite(change),
            "change_pct": finite(100 * change / first_open) if first_open else 0.0,
        }


_EMPTY: Mapping[str, Any] = {
    "max_high": 0.0,
    "max_high_index": 0,
    "min_low": 0.0,
    "min_low_index": 0,
    "max_volume": 0.0,
    "first_open": 0.0,
    "last_close": 0.0,
    "avg_close": 0.0,
    "change": 0.0,
    "change_pct": 0.0,
}
