"""Entry fields, checked strictly; what several stream types share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from layerscale_core.errors import InvalidRequestError

MAX_NAME_LEN = 64
"""Characters of a name in an entry, such as a symbol: an entry is one short line."""


def number(entry: Mapping[str, Any], name: str) -> float:
    """A required finite number; integers count as numbers, booleans do not.

    Raises:
        InvalidRequestError: it is missing, of another type, or too large for a float.
    """
    value = entry.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            as_float = float(value)
        except OverflowError:
            as_float = math.inf
        if math.isfinite(as_float):
            return as_float
    raise InvalidRequestError(f"entry field {name!r} must be a finite number", param=name)


def optional_name(entry: Mapping[str, Any], name: str) -> dict[str, str]:
    """An optional short text as a mapping of one field, or of none.

    Raises:
        InvalidRequestError: it is no text, or too long.
    """
    value = entry.get(name)
    if value is None:
        return {}
    if not isinstance(value, str) or len(value) > MAX_NAME_LEN:
        raise InvalidRequestError(
            f"entry field {name!r} must be a string of at most {MAX_NAME_LEN} characters", param=name
        )
    return {name: value}


def optional_timestamp(entry: Mapping[str, Any]) -> dict[str, int]:
    """The optional ``timestamp`` (Unix seconds) as a mapping of one field, or of none.

    Raises:
        InvalidRequestError: it is no integer, or beyond 64 bits.
    """
    value = entry.get("timestamp")
    if value is None:
        return {}
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise InvalidRequestError("entry field 'timestamp' must be an integer of 64 bits", param="timestamp")
    return {"timestamp": value}


def number_text(value: float) -> str:
    """The shortest text that reads back as the same number, without a trailing ``.0``."""
    return repr(value).removesuffix(".0")


def name_text(value: str) -> str:
    """A name that cannot break its line: whatever does not print becomes a space."""
    return "".join(character if character.isprintable() else " " for character in value)


def finite(value: float) -> float:
    """The value, or 0.0 where arithmetic on extreme entries overflowed: JSON has no infinity."""
    return value if math.isfinite(value) else 0.0
