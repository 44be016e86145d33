"""Alternatives that a property tells apart: a value can fit only one, so that ``oneOf`` means what ``anyOf`` does.

llguidance proves this for alternatives that are written out, not for references, which unions of classes are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MAX_REFERENCES = 16
"""A chain of references longer than this is taken for one that never ends."""


def is_tagged_union(options: Sequence[Any], root: Any) -> bool:
    """Whether some property is required by every option, with values that no other option has.

    Args:
        options: schemas, or references into ``root``.
    """
    tags = [_tags(_resolved(option, root)) for option in options]
    shared = set.intersection(*(set(each) for each in tags)) if tags else set()
    return any(_are_disjoint([each[name] for each in tags]) for name in shared)


def _tags(schema: Any) -> dict[str, list[str]]:
    """The required properties of an object that have one of a few given texts, by name."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return {}
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    values = {name: _values(properties.get(name)) for name in required if isinstance(name, str)}
    return {name: texts for name, texts in values.items() if texts}


def _values(schema: Any) -> list[str]:
    if not isinstance(schema, dict):
        return []
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return values if isinstance(values, list) and all(isinstance(each, str) for each in values) else []


def _are_disjoint(values: Sequence[list[str]]) -> bool:
    together = [value for each in values for value in set(each)]
    return len(together) == len(set(together))


def _resolved(schema: Any, root: Any) -> Any:
    """What a reference to a definition of the same document stands for; None where it leads nowhere."""
    for _ in range(_MAX_REFERENCES):
        if not isinstance(schema, dict) or "$ref" not in schema:
            return schema
        schema = _at(root, schema["$ref"])
    return None


def _at(root: Any, pointer: Any) -> Any:
    """The place that a JSON pointer names (RFC 6901), as far as it leads through objects."""
    if not isinstance(pointer, str) or not pointer.startswith("#/"):
        return None
    place = root
    for part in pointer.removeprefix("#/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, dict) or name not in place:
            return None
        place = place[name]
    return place
