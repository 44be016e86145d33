"""What entries may hold, for every built-in stream type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.errors import InvalidRequestError
from tests.support.stream_entries import EXAMPLES, NAMES, REQUIRED, STREAM_TYPES, entries


def refused(name: str, entry: dict[str, Any]) -> InvalidRequestError:
    """The error with which an entry is refused."""
    with pytest.raises(InvalidRequestError) as refusal:
        STREAM_TYPES[name].validate(entry)
    return refusal.value


@pytest.mark.parametrize(("name", "field"), REQUIRED)
def test_a_required_field_must_be_there(name: str, field: str) -> None:
    entry = {other: value for other, value in EXAMPLES[name].items() if other != field}
    assert refused(name, entry).param == field


@pytest.mark.parametrize("value", [None, "1", True, False, float("nan"), float("-inf"), 10**400, [1], {}], ids=repr)
@pytest.mark.parametrize(("name", "field"), [pair for pair in REQUIRED if type(EXAMPLES[pair[0]][pair[1]]) is float])
def test_a_number_must_be_finite_and_no_text_or_boolean(name: str, field: str, value: object) -> None:
    error = refused(name, EXAMPLES[name] | {field: value})
    assert str(error) == f"entry field {field!r} must be a finite number"
    assert error.param == field


@pytest.mark.parametrize(("name", "field"), [pair for pair in REQUIRED if type(EXAMPLES[pair[0]][pair[1]]) is float])
def test_an_integer_is_a_number_and_becomes_a_float(name: str, field: str) -> None:
    value = STREAM_TYPES[name].validate(EXAMPLES[name] | {field: 7})[field]
    assert (value, type(value)) == (7.0, float)


@pytest.mark.parametrize("value", [None, "1", True, 4.0, 4.5, 2**63, -(2**63) - 1, []], ids=repr)
@pytest.mark.parametrize("field", ["sev", "cnt"])
def test_an_integer_must_be_one(field: str, value: object) -> None:
    error = refused("event", EXAMPLES["event"] | {field: value})
    assert str(error) == f"entry field {field!r} must be an integer of 64 bits"
    assert error.param == field


@pytest.mark.parametrize("value", [None, 5, True, ["a"], b"a", "x" * 65, "half a pair: \ud83d"], ids=ascii)
@pytest.mark.parametrize(("name", "field"), [("iot", "sid"), ("event", "src"), ("event", "cat")])
def test_a_text_must_be_short_and_whole(name: str, field: str, value: object) -> None:
    error = refused(name, EXAMPLES[name] | {field: value})
    assert str(error) == f"entry field {field!r} must be a string of at most 64 characters"
    assert error.param == field


@pytest.mark.parametrize("value", [5, True, "x" * 65, "\udfff"], ids=ascii)
def test_an_optional_symbol_of_another_type_is_refused(value: object) -> None:
    assert refused("ohlcv", EXAMPLES["ohlcv"] | {"sym": value}).param == "sym"


@pytest.mark.parametrize("value", [1.0, 1.5, True, "1704205800", 2**63, [1]], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_a_timestamp_of_another_type_is_refused(name: str, value: object) -> None:
    assert refused(name, EXAMPLES[name] | {"timestamp": value}).param == "timestamp"


@pytest.mark.parametrize("name", NAMES)
def test_an_optional_field_that_is_null_is_absent(name: str) -> None:
    assert STREAM_TYPES[name].validate(EXAMPLES[name] | {"timestamp": None}) == EXAMPLES[name]
    assert "sym" not in STREAM_TYPES["ohlcv"].validate(EXAMPLES["ohlcv"] | {"sym": None})


@pytest.mark.parametrize("name", NAMES)
def test_fields_that_are_not_declared_are_dropped(name: str) -> None:
    assert STREAM_TYPES[name].validate(EXAMPLES[name] | {"ts": "x", "note": [1], "": None}) == EXAMPLES[name]


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_valid_entry_survives_json_and_a_second_validation(name: str, data: st.DataObject) -> None:
    entry = data.draw(entries(name))
    validated = STREAM_TYPES[name].validate(entry)
    restored = json.loads(json.dumps(validated, allow_nan=False))
    assert STREAM_TYPES[name].validate(restored) == validated == entry


JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=70),
    st.just([]),
    st.just({}),
)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_whatever_a_client_sends_is_refused_by_name_or_can_be_written_and_counted(
    name: str, data: st.DataObject
) -> None:
    fields = [*EXAMPLES[name], "timestamp", "unknown"]
    entry = EXAMPLES[name] | data.draw(st.dictionaries(st.sampled_from(fields), JSON_VALUES, max_size=3))
    try:
        validated = STREAM_TYPES[name].validate(entry)
    except InvalidRequestError as error:
        if error.param not in fields:
            raise
        return
    line = STREAM_TYPES[name].render(validated)
    assert line.isprintable()
    json.dumps(STREAM_TYPES[name].statistics([validated]), allow_nan=False, ensure_ascii=False).encode()
