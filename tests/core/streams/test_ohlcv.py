"""Market bars."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscale_core.errors import InvalidRequestError
from layerscale_core.streams import OhlcvStream

BAR = {"o": 10, "h": 12.5, "l": 9.75, "c": 11.0, "v": 1200}
STREAM = OhlcvStream()


def bar(**fields: float) -> dict[str, float]:
    return dict(STREAM.validate(BAR | fields))


def test_an_entry_becomes_one_line_with_its_time_and_symbol() -> None:
    entry = STREAM.validate(BAR | {"sym": "ACME", "timestamp": 1704205800})
    assert STREAM.render(entry) == "1704205800 ACME o=10 h=12.5 l=9.75 c=11 v=1200"
    assert STREAM.render(STREAM.validate(BAR)) == "o=10 h=12.5 l=9.75 c=11 v=1200"


def test_a_symbol_cannot_break_its_line() -> None:
    assert STREAM.render(STREAM.validate(BAR | {"sym": "A\nB\u2028C\x1b"})).startswith("A B C  o=10")


def test_fields_that_are_not_declared_are_dropped() -> None:
    assert STREAM.validate(BAR | {"ts": 5, "note": "x"}) == BAR


@pytest.mark.parametrize("name", ["o", "h", "l", "c", "v"])
@pytest.mark.parametrize("value", [None, "1", True, float("nan"), float("inf"), 10**400, [1]])
def test_a_required_number_must_be_one(name: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=f"entry field '{name}' must be a finite number") as refusal:
        STREAM.validate(BAR | {name: value})
    assert refusal.value.param == name


@pytest.mark.parametrize(
    ("name", "value"), [("sym", 5), ("sym", "x" * 65), ("timestamp", 1.5), ("timestamp", True), ("timestamp", 2**63)]
)
def test_an_optional_field_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        STREAM.validate(BAR | {name: value})
    assert refusal.value.param == name


def test_statistics_of_a_window() -> None:
    window = [bar(o=10, h=15, l=8, c=12, v=5), bar(h=20, l=8, c=13, v=7), bar(h=20, l=9, c=14, v=6)]
    assert STREAM.statistics(window) == {
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


def test_an_open_of_zero_has_no_percentage() -> None:
    assert STREAM.statistics([bar(o=0)])["change_pct"] == 0.0


def test_statistics_of_an_empty_window_are_zeros() -> None:
    empty, full = STREAM.statistics([]), STREAM.statistics([bar()])
    assert list(empty) == list(full)
    assert {name: type(value) for name, value in empty.items()} == {name: type(value) for name, value in full.items()}
    assert not any(empty.values())


@given(st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 5), min_size=1, max_size=5))
def test_extreme_numbers_never_become_infinite(rows: list[tuple[float, ...]]) -> None:
    window = [STREAM.validate(dict(zip("ohlcv", row, strict=True))) for row in rows]
    json.dumps(STREAM.statistics(window), allow_nan=False)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_written_without_loss(value: float) -> None:
    assert float(STREAM.render(bar(c=value)).split("c=")[1].split()[0]) == value
