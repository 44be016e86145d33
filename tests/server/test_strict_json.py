"""Strict JSON: what it accepts is what ``json`` reads, and the outline is what a slow scan finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.errors import InvalidRequestError
from layerscale_server.http import strict_json
from layerscale_server.http.strict_json import parse_object
from layerscale_server.limits import Limits

LIMITS = Limits()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


def slow_outline(body: bytes) -> tuple[int, int, int]:
    """Depth, containers and separators, byte by byte."""
    in_string = is_escaped = False
    depth = max_depth = containers = separators = 0
    for byte in body:
        was_escaped, is_escaped = is_escaped, False
        if byte == ord("\\"):
            is_escaped = not was_escaped
        elif byte == ord('"'):
            in_string ^= not was_escaped
        elif not in_string:
            opens = byte in b"[{"
            containers += opens
            depth += opens - (byte in b"]}")
            max_depth = max(max_depth, depth)
            separators += byte == ord(",")
    return max_depth, containers, separators


@settings(deadline=None, max_examples=300)
@given(body=st.lists(st.sampled_from(b'\\\\\\"",[]{}a'), max_size=60).map(bytes), piece=st.integers(1, 64))
def test_outline_is_that_of_a_slow_scan_wherever_the_body_is_cut(body: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_SCAN_BYTES", piece)
        outline = strict_json._outline(body)
    assert (outline.max_depth, outline.containers, outline.separators) == slow_outline(body)


@settings(deadline=None, max_examples=100)
@given(
    value=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=5),
    ascii_only=st.booleans(),
)
def test_reads_what_json_writes(value: dict[str, Any], ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse_object(body, LIMITS) == value


@settings(deadline=None, max_examples=300)
@given(body=st.binary(max_size=100) | st.text('{}[]",:\\u0d8e1-.ntf ', max_size=60).map(lambda text: text.encode()))
def test_anything_else_is_the_clients_error(body: bytes) -> None:
    try:
        value = parse_object(body, LIMITS)
    except InvalidRequestError:
        return
    assert value == json.loads(body)


def test_surrogate_pairs_are_characters() -> None:
    assert parse_object(b'{"a":"\\ud83d\\ude00"}', LIMITS) == {"a": "\U0001f600"}
    assert parse_object(b'{"a":"\\\\ud800"}', LIMITS) == {"a": "\\ud800"}


def test_large_body_within_the_limits_is_read() -> None:
    numbers = list(range(1_048_576))
    assert parse_object(json.dumps({"prompt": numbers}).encode(), LIMITS) == {"prompt": numbers}


def test_error_never_quotes_the_body() -> None:
    for body in (b'{"secret": nope}', b'{"secret":1,"secret":2}', b'"secret"', b'{"secret":NaN}'):
        with pytest.raises(InvalidRequestError) as caught:
            parse_object(body, LIMITS)
        assert "secret" not in str(caught.value)
