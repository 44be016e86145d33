"""JSON from a model's folder, read without trusting it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from layerscale_core.errors import ModelFileError
from layerscale_core.formats.files import read_file


def read_json_object(path: Path, max_bytes: int) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        ModelFileError: missing, too large, or no JSON object in valid UTF-8.
    """
    return parse_json_object(read_file(path, max_bytes), str(path))


def parse_json_object(content: bytes, path: str, field: str | None = None) -> dict[str, Any]:
    """An object in strict JSON: no key twice, no NaN, no number of thousands of digits.

    Args:
        field: what it is, for the error.

    Raises:
        ModelFileError: it is something else.
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError:
        raise ModelFileError(path, "its JSON is nested too deeply", field=field) from None
    except ValueError as error:  # of UTF-8, of JSON, and those below
        raise ModelFileError(path, f"not valid JSON: {error}", field=field) from error
    if not isinstance(value, dict):
        raise ModelFileError(path, "not a JSON object", field=field)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key appears twice")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
