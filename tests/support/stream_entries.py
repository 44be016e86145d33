"""Entries of every built-in stream type: some to look at, and Hypothesis strategies for any."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from layerscale_core.plugins import PluginRegistry

STREAM_TYPES = PluginRegistry.discover().stream_types()

EXAMPLES: dict[str, dict[str, Any]] = {
    "ohlcv": {"o": 10.0, "h": 12.5, "l": 9.75, "c": 11.0, "v": 1200.0, "sym": "ACME"},
    "iot": {"sid": "boiler-3", "val": 91.5, "lo": 20.0, "hi": 80.0},
    "spatial": {"x": 12.5, "y": -3.0, "z": 0.4, "spd": 5.25, "hdg": 270.0},
    "event": {"src": "api-gateway", "sev": 4, "cat": "timeout", "cnt": 12},
    "vitals": {"hr": 72.0, "bp_s": 120.0, "bp_d": 80.0, "spo2": 98.0, "temp": 36.8},
}
NAMES = sorted(EXAMPLES)

OPTIONAL = {"sym", "timestamp"}
REQUIRED = [(name, field) for name in NAMES for field in EXAMPLES[name] if field not in OPTIONAL]
"""Every required field, with the name of its type."""

ANY_FLOAT = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=64)
INTEGERS = st.integers(-(2**63), 2**63 - 1)


def entries(name: str, floats: st.SearchStrategy[float] = ANY_FLOAT) -> st.SearchStrategy[dict[str, Any]]:
    """Valid entries of a type, with and without their optional fields."""
    by_kind = {float: floats, int: INTEGERS, str: TEXTS}
    fields = {field: by_kind[type(value)] for field, value in EXAMPLES[name].items()}
    required = {field: strategy for field, strategy in fields.items() if field not in OPTIONAL}
    optional = {field: strategy for field, strategy in fields.items() if field in OPTIONAL}
    return st.fixed_dictionaries(required, optional={**optional, "timestamp": INTEGERS})


def few_values(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Entries that are often alike, with times that often repeat or run backwards: where ties and runs are decided."""
    by_kind = {
        float: st.sampled_from([-300.0, -1.5, 0.0, 59.0, 60.0, 89.5, 90.0, 100.0, 100.5, 350.0, 730.0]),
        int: st.integers(0, 6),
        str: st.sampled_from(["a", "b", "c"]),
    }
    fields = {field: by_kind[type(value)] for field, value in EXAMPLES[name].items()}
    return st.fixed_dictionaries(fields, optional={"timestamp": st.integers(0, 3)})
