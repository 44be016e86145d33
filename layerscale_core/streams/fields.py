"""Entry fields, checked strictly; what several stream types share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from layerscale_core.errors import InvalidRequestError

MAX_TEXT_LEN = 64
"""Characters of a text in an entry, such as a symbol: an entry is one short line."""


def number(entry: Mapping[str, Any], field: str) -> float:
    """A required finite number; integers count as numbers, booleans do not.

    Raises:
        InvalidRequestError: it is missing, of another type, or too large for a float.
    """
    value = entry.get(field)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise InvalidRequestError(f"entry field {field!r} must be a finite number", param=field)


def integer(entry: Mapping[str, Any], field: str) -> int:
    """A required integer of 64 bits; 4.0 is none, nor is a boolean.

    Raises:
        InvalidRequestError: it is missing, of another type, or beyond 64 bits.
    """
    value = entry.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return value
    raise InvalidRequestError(f"entry field {field!r} must be an integer of 64 bits", param=field)


def text(entry: Mapping[str, Any], field: str) -> str:
    """A required short text; it may be empty.

    Raises:
        InvalidRequestError: it is missing, no text, too long, or has half a surrogate pair, which no answer can carry.
    """
    value = entry.get(field)
    if isinstance(value, str) and len(value) <= MAX_TEXT_LEN and (value.isprintable() or _is_unicode(value)):
        return value
    raise InvalidRequestError(
        f"entry field {field!r} must be a string of at most {MAX_TEXT_LEN} characters", param=field
    )


def optional_text(entry: Mapping[str, Any], field: str) -> dict[str, str]:
    """An optional short text as a mapping of one field, or of none; null is none.

    Raises:
        InvalidRequestError: see ``text``.
    """
    return {} if entry.get(field) is None else {field: text(entry, field)}


def optional_timestamp(entry: Mapping[str, Any]) -> dict[str, int]:
    """The optional ``timestamp`` (Unix seconds) as a mapping of one field, or of none; null is none.

    Raises:
        InvalidRequestError: see ``integer``.
    """
    return {} if entry.get("timestamp") is None else {"timestamp": integer(entry, "timestamp")}


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
