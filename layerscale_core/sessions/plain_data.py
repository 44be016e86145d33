"""Dataclasses as JSON and back. Reading is strict: exactly the fields that are declared, each of its type."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

_MAX_INT = 2**63 - 1


def to_json(value: Any) -> bytes:
    """A tree of dataclasses as JSON text.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(value, default=_as_dict, allow_nan=False, separators=(",", ":")).encode("ascii")


def from_json(kind: type[T], text: bytes) -> T:
    """The dataclass of this type that ``to_json`` wrote.

    Raises:
        ValueError: it is not JSON, or not of this shape; the message names the field.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates)
        json.dumps(value, ensure_ascii=False).encode()  # which half a surrogate pair does not survive
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return _of_kind(kind, value, "")  # type: ignore[no-any-return]


def _as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise ValueError("a field occurs twice")
    return keys


def _of_kind(kind: Any, value: Any, name: str) -> Any:
    """A JSON value as the annotated type, which is a dataclass or built of the few kinds named here."""
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, name)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _of_kind(arguments[0], value, name)
    if origin is tuple and type(value) is list:
        return tuple(_of_kind(arguments[0], each, name) for each in value)
    if not _fits(origin or kind, value):
        raise ValueError(f"{name or 'the whole'} is not of its type")
    return value


def _fits(kind: Any, value: Any) -> bool:
    if kind is Mapping:
        return type(value) is dict
    if kind is int:
        return type(value) is int and -_MAX_INT <= value <= _MAX_INT
    if kind is float:
        return type(value) is float and math.isfinite(value)
    return kind in (str, bool) and type(value) is kind


def _dataclass(kind: Any, value: Any, name: str) -> Any:
    hints = _hints(kind)
    if type(value) is not dict or value.keys() != hints.keys():
        raise ValueError(f"{name or 'the whole'} has other fields than {', '.join(hints)}")
    return kind(**{field: _of_kind(hint, value[field], field) for field, hint in hints.items()})


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
