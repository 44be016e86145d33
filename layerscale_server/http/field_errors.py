"""What is wrong with a body, in words: the field and the rule, never what the client sent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from layerscale_core.errors import InvalidRequestError

_MAX_DETAILS = 10

_RULES = {
    "bool_type": "should be true or false",
    "dict_type": "should be an object",
    "model_type": "should be an object",
    "model_attributes_type": "should be an object",
    "string_pattern_mismatch": "should match {pattern}",
    "too_long": "should have at most {max_length} items",
    "too_short": "should not be empty",
}
"""Words for the rules that the library words for Python's users; those of others are for everybody."""


def invalid_request(error: ValidationError, schema: type[BaseModel]) -> InvalidRequestError:
    """The first errors of a body in one line."""
    details = _telling(error.errors(include_url=False, include_input=False))
    names = _field_names(schema)
    fields = [_path(detail["loc"], names) for detail in details]
    rules = map(_rule, details)
    lines = dict.fromkeys(f"{field}: {rule}" if field else rule for field, rule in zip(fields, rules, strict=True))
    return InvalidRequestError("; ".join(list(lines)[:_MAX_DETAILS]), param=fields[0].split(".")[0] or None)


def _telling(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Without the fields that are missing only because their object is of another ``type``."""
    strangers = {
        detail["loc"][:-1] for detail in details if detail["type"] == "literal_error" and detail["loc"][-1] == "type"
    }
    return [detail for detail in details if detail["type"] != "missing" or detail["loc"][:-1] not in strangers]


def _rule(detail: ErrorDetails) -> str:
    if (words := _RULES.get(detail["type"])) is not None:
        return words.format(**detail.get("ctx", {}))
    return detail["msg"].removeprefix("Value error, ").replace("Input should", "should")


def _path(location: tuple[int | str, ...], names: frozenset[str]) -> str:
    """A field's path, e.g. ``messages.0.role``, without what is not ours: keys of mappings, members of unions."""
    return ".".join(str(part) for part in location if isinstance(part, int) or part in names)


@cache
def _field_names(schema: type[BaseModel]) -> frozenset[str]:
    return frozenset(_properties(schema.model_json_schema()))


def _properties(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for each in schema for name in _properties(each)]
    if not isinstance(schema, dict):
        return []
    own = list(schema.get("properties", ()))
    return own + [name for each in schema.values() for name in _properties(each)]
