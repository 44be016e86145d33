"""Events: what happened where, how bad it is, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerscale_core.streams.fields import integer, optional_timestamp, text
from layerscale_core.streams.line import line, name_text, time_text

CRITICAL_SEVERITY = 4
"""An event of this severity or a higher one is critical."""


class EventStream:
    """``layerscale_core.specs.StreamType`` for events ``src sev cat cnt`` with an optional ``timestamp``."""

    name = "event"

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """The event with its declared fields only."""
        return {
            "src": text(entry, "src"),
            "sev": integer(entry, "sev"),
            "cat": text(entry, "cat"),
            "cnt": integer(entry, "cnt"),
            **optional_timestamp(entry),
        }

    def render(self, entry: Mapping[str, Any]) -> str:
        """One line, e.g. ``Jan 2 14:30 api-gateway timeout severity 4 count 12``."""
        return line(
            time_text(entry),
            name_text(entry["src"]),
            name_text(entry["cat"]),
            f"severity {entry['sev']} count {entry['cnt']}",
        )

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Occurrences in total and of the commonest category, the first seen of equals; how bad, and from how many."""
        if not entries:
            return dict(_EMPTY)
        severities = [entry["sev"] for entry in entries]
        count_by_category: dict[str, int] = {}
        for entry in entries:
            count_by_category[entry["cat"]] = count_by_category.get(entry["cat"], 0) + entry["cnt"]
        top_category = max(count_by_category, key=count_by_category.__getitem__)
        return {
            "total_event_count": sum(count_by_category.values()),
            "max_severity": max(severities),
            "critical_events": sum(severity >= CRITICAL_SEVERITY for severity in severities),
            "unique_sources": len({entry["src"] for entry in entries}),
            "unique_categories": len(count_by_category),
            "top_category": top_category,
            "top_category_count": count_by_category[top_category],
        }


_EMPTY: Mapping[str, Any] = {
    "total_event_count": 0,
    "max_severity": 0,
    "critical_events": 0,
    "unique_sources": 0,
    "unique_categories": 0,
    "top_category": "",
    "top_category_count": 0,
}
