"""How entries are written for the model."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from layerscale_core.streams.line import name_text, number_text, time_text
from tests.support.stream_entries import ANY_FLOAT, EXAMPLES, NAMES, STREAM_TYPES, entries

JAN_2_14_30 = 1704205800

LINES = {
    "ohlcv": "ACME open 10 high 12.5 low 9.75 close 11 volume 1200",
    "iot": "boiler-3 91.5 above 20 to 80",
    "spatial": "x 12.5 y -3 z 0.4 speed 5.25 heading 270",
    "event": "api-gateway timeout severity 4 count 12",
    "vitals": "heart rate 72 pressure 120/80 oxygen 98% temperature 36.8 C",
}


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_becomes_one_line_with_its_time_before_it(name: str) -> None:
    stream_type = STREAM_TYPES[name]
    assert stream_type.render(stream_type.validate(EXAMPLES[name])) == LINES[name]
    timed = stream_type.validate(EXAMPLES[name] | {"timestamp": JAN_2_14_30})
    assert stream_type.render(timed) == f"Jan 2 14:30 {LINES[name]}"


def test_a_bar_without_a_symbol_begins_with_its_open() -> None:
    bar = {field: value for field, value in EXAMPLES["ohlcv"].items() if field != "sym"}
    assert STREAM_TYPES["ohlcv"].render(bar) == "open 10 high 12.5 low 9.75 close 11 volume 1200"


@pytest.mark.parametrize(
    ("value", "words"),
    [(19.5, "19.5 below 20 to 80"), (20, "20 within 20 to 80"), (80, "80 within 20 to 80"), (81, "81 above 20 to 80")],
)
def test_a_reading_says_on_which_side_of_its_thresholds_it_is(value: float, words: str) -> None:
    iot = STREAM_TYPES["iot"]
    assert iot.render(iot.validate(EXAMPLES["iot"] | {"val": value})) == f"boiler-3 {words}"


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (JAN_2_14_30 + 5, "Jan 2 14:30:05"),
        (1704153600, "Jan 2 2024"),  # midnight: daily data
        (1704153601, "Jan 2 00:00:01"),
        (0, "Jan 1 1970"),
        (-1, "Dec 31 23:59:59"),
        (253402300799, "Dec 31 23:59:59"),
        (253402300800, "253402300800"),  # the year 10000
        (1704205800000, "1704205800000"),  # milliseconds
        (2**63 - 1, "9223372036854775807"),
        (-(2**63), "-9223372036854775808"),
    ],
)
def test_a_time_is_written_as_people_write_it(timestamp: int, text: str) -> None:
    assert time_text({"timestamp": timestamp}) == text


@settings(deadline=None)
@given(st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))
def test_a_time_reads_back_but_for_the_year_of_what_is_not_daily(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    text = time_text({"timestamp": int(moment.timestamp())})
    if moment.hour == moment.minute == moment.second == 0:
        assert datetime.strptime(text, "%b %d %Y").replace(tzinfo=UTC) == moment
    else:
        pattern = "%b %d %H:%M:%S" if moment.second else "%b %d %H:%M"
        assert datetime.strptime(f"{moment.year} {text}", f"%Y {pattern}").replace(tzinfo=UTC) == moment


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1200.0, "1200"),
        (0.1 + 0.2, "0.3"),
        (185.63999938964844, "185.64"),  # a float32, widened
        (1.08457, "1.08457"),
        (1234567.89, "1234568"),
        (82488700.0, "82488700"),
        (82488700.4, "82488700"),
        (999999999999999.0, "999999999999999"),
        (1e15, "1e+15"),
        (1.7976931348623157e308, "1.797693e+308"),
        (0.00001234, "1.234e-05"),
        (-0.0, "0"),
        (-2.5, "-2.5"),
    ],
)
def test_a_number_is_short(value: float, text: str) -> None:
    assert number_text(value) == text


@settings(deadline=None)
@given(ANY_FLOAT)
def test_a_number_keeps_seven_digits(value: float) -> None:
    assume(abs(value) > 1e-300)  # below, floats themselves have fewer
    assert math.isclose(float(number_text(value)), value, rel_tol=5.0000001e-7)


@settings(deadline=None)
@given(st.integers(-(10**15) + 1, 10**15 - 1))
def test_a_whole_number_is_exact(value: int) -> None:
    assert number_text(float(value)) == str(value)


@settings(deadline=None)
@given(st.decimals("0.01", "99999.99", places=2))
def test_a_price_that_came_as_float32_is_written_as_it_was_quoted(price: object) -> None:
    text = number_text(_as_float32(float(str(price))))
    assert float(text) == float(str(price))


def _as_float32(value: float) -> float:
    widened: float = struct.unpack("f", struct.pack("f", value))[0]
    return widened


@settings(deadline=None)
@given(st.text(st.characters(), max_size=64))
@example("a\nb\r\x1b[0m\u2028 c\ud800")
def test_a_name_cannot_break_its_line_or_fake_another_ones_spacing(value: str) -> None:
    text = name_text(value)
    assert text.isprintable()
    assert "  " not in text
    assert text == text.strip()
    assert text.split() == "".join(character if character.isprintable() else " " for character in value).split()


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_entry_is_one_printable_line(name: str, data: st.DataObject) -> None:
    line = STREAM_TYPES[name].render(STREAM_TYPES[name].validate(data.draw(entries(name))))
    assert line.isprintable()
    assert line == line.strip() != ""
    assert len(line) < 300
