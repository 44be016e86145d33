"""The page on stream types says what they are."""

from __future__ import annotations

import re
from typing import Any

import pytest

from layerscale_core.streams.event import CRITICAL_SEVERITY
from layerscale_core.streams.fields import MAX_TEXT_LEN
from tests.support.documentation import inline_code, read
from tests.support.stream_entries import EXAMPLES, NAMES, STREAM_TYPES

PAGE = read("docs/streams.md")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
KINDS = {"number": float, "text": str, "integer": int}

WRITTEN: dict[str, dict[str, Any]] = {
    "ohlcv": {"o": 185.57, "h": 186.19, "l": 184.56, "c": 184.73, "v": 890163, "sym": "ACME", "timestamp": 1704206100},
    "iot": {"sid": "boiler-1", "val": 58.8, "lo": 20, "hi": 80, "timestamp": 1704205810},
    "spatial": {"x": -1.41, "y": 41.82, "z": 7.47, "spd": 24.2, "hdg": 183, "timestamp": 1704205801},
    "event": {"src": "worker-7", "sev": 3, "cat": "restart", "cnt": 31, "timestamp": 1704205860},
    "vitals": {"hr": 105, "bp_s": 125, "bp_d": 89, "spo2": 92, "temp": 36.9, "timestamp": 1704205860},
}


def rows(section: str, name: str) -> list[list[str]]:
    """The rows of a type in a section's tables, without their first cell; where that is empty, the one above counts."""
    found, current = [], ""
    for line in SECTIONS[section].splitlines():
        if line.startswith("|"):
            first, *cells = [cell.strip() for cell in line[1:-1].split("|")]
            current = first.strip("`") or current
            if current == name:
                found.append(cells)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_entries_has_every_field_with_its_kind(name: str) -> None:
    documented = {field: cells[1] for cells in rows("Entries", name) for field in inline_code(cells[0])}
    assert list(documented) == list(EXAMPLES[name])
    for field, kind in documented.items():
        assert KINDS[kind.removesuffix(", optional")] is type(EXAMPLES[name][field])
        is_optional = STREAM_TYPES[name].validate(EXAMPLES[name] | {"sym": None}).get(field) is None
        assert kind.endswith(", optional") == is_optional


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_lines_shows_what_is_written(name: str) -> None:
    stream_type = STREAM_TYPES[name]
    [[line, _]] = rows("Lines", name)
    assert line == f"`{stream_type.render(stream_type.validate(WRITTEN[name]))}`"


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_statistics_has_every_field(name: str) -> None:
    documented = [field for cells in rows("Statistics", name) for field in inline_code(cells[0])]
    assert documented == list(STREAM_TYPES[name].statistics([]))


@pytest.mark.parametrize("field", ["current", "alerts"])
def test_fields_within_fields_are_named_too(field: str) -> None:
    [text] = [cells[1] for cells in rows("Statistics", "vitals") if inline_code(cells[0]) == [field]]
    assert set(STREAM_TYPES["vitals"].statistics([])[field]) <= set(inline_code(text))


def test_limits_are_those_of_the_code() -> None:
    assert f"at most {MAX_TEXT_LEN} characters" in PAGE
    assert f"`sev` ≥ {CRITICAL_SEVERITY}" in PAGE
    assert f"{CRITICAL_SEVERITY} and more is critical" in PAGE
