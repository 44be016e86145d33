"""Market bars: open, high, low, close, volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerscale_core.streams.fields import number, optional_text, optional_timestamp
from layerscale_core.streams.figures import finite, mean
from layerscale_core.streams.line import line, name_text, number_text, time_text


class OhlcvStream:
    """``layerscale_core.specs.StreamType`` for bars ``o h l c v`` with an optional ``sym`` and ``timestamp``."""

    name = "ohlcv"

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """The bar with its declared fields only, numbers as floats."""
        return {
            "o": number(entry, "o"),
            "h": number(entry, "h"),
            "l": number(entry, "l"),
            "c": number(entry, "c"),
            "v": number(entry, "v"),
            **optional_text(entry, "sym"),
            **optional_timestamp(entry),
        }

    def render(self, entry: Mapping[str, Any]) -> str:
        """One line, e.g. ``Jan 2 14:30 ACME open 10 high 12.5 low 9.75 close 11 volume 1200``."""
        return line(
            time_text(entry),
            name_text(entry.get("sym", "")),
            f"open {number_text(entry['o'])} high {number_text(entry['h'])} low {number_text(entry['l'])}",
            f"close {number_text(entry['c'])} volume {number_text(entry['v'])}",
        )

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Extremes with the index of their first occurrence, and the change from the first open to the last close."""
        if not entries:
            return dict(_EMPTY)
        highs = [entry["h"] for entry in entries]
        lows = [entry["l"] for entry in entries]
        max_high, min_low = max(highs), min(lows)
        first_open, last_close = entries[0]["o"], entries[-1]["c"]
        change = last_close - first_open
        return {
            "max_high": max_high,
            "max_high_index": highs.index(max_high),
            "min_low": min_low,
            "min_low_index": lows.index(min_low),
            "max_volume": max(entry["v"] for entry in entries),
            "first_open": first_open,
            "last_close": last_close,
            "avg_close": mean([entry["c"] for entry in entries]),
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
