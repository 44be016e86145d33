"""Whether what a grammar describes can ever be complete.

A rule that cannot be left again, ``start: "a" start``, is a mistake, and would have its forced text go on for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from layerscale_core.constraints.lark_rules import tokens_of

_MAX_PASSES = 64
"""Chains of rules that need more passes than this are taken for endless."""

Body = TypeVar("Body")
IsFinite = Callable[[str], bool]


def lark_can_end(bodies: Mapping[str, str]) -> bool:
    """Whether every rule of a grammar has a text."""
    return len(_finite(bodies, _rule_ends)) == len(bodies)


def schema_can_end(schema: Mapping[str, Any]) -> bool:
    """Whether every definition of a schema, and the schema itself, has a value."""
    defined = {
        f"#/{place}/{name}": each for place in ("$defs", "definitions") for name, each in schema.get(place, {}).items()
    }
    return len(_finite({"#": schema, **defined}, _value_ends)) == len(defined) + 1


def _finite(bodies: Mapping[str, Body], ends: Callable[[Body, IsFinite], bool]) -> set[str]:
    """The names whose bodies end, given those that do: found from the leaves on."""
    finite: set[str] = set()

    def is_finite(name: str) -> bool:
        return name in finite or name not in bodies

    for _ in range(_MAX_PASSES):
        found = {name for name, body in bodies.items() if name not in finite and ends(body, is_finite)}
        if not found:
            break
        finite |= found
    return finite


def _rule_ends(body: str, is_finite: IsFinite) -> bool:
    """Whether one of a rule's alternatives consists of parts that end."""
    outer: list[tuple[bool, bool]] = []
    any_ends, all_end, last = False, True, True
    for token in tokens_of(body):
        match token.lastgroup:
            case "optional":
                last = True
            case "count":
                last = last or not any(digit in token[0] for digit in "123456789")
            case "bar":
                any_ends, all_end, last = any_ends or (all_end and last), True, True
            case "open":
                outer.append((any_ends, all_end and last))
                any_ends, all_end, last = False, True, True
            case "close" if outer:
                last = any_ends or (all_end and last) or token[0] == "]"
                any_ends, all_end = outer.pop()
            case "name":
                all_end, last = all_end and last, is_finite(token[0])
            case "text" | "regex":
                all_end, last = all_end and last, True
    return any_ends or (all_end and last)


def _value_ends(schema: Any, is_finite: IsFinite) -> bool:
    """Whether what a schema requires has a value."""
    if not isinstance(schema, dict):
        return True
    properties, num_items = schema.get("properties", {}), schema.get("minItems", 0)
    needed = [properties.get(name) for name in schema.get("required", ()) if isinstance(name, str)]
    needed += schema.get("allOf", [])
    if isinstance(num_items, int) and num_items > 0:
        before = schema.get("prefixItems", [])[:num_items]
        needed += [*before, schema.get("items")] if num_items > len(before) else before
    if not all(_value_ends(each, is_finite) for each in needed) or not is_finite(str(schema.get("$ref", ""))):
        return False
    choices = [schema[keyword] for keyword in ("anyOf", "oneOf") if keyword in schema]
    return all(any(_value_ends(each, is_finite) for each in options) for options in choices)
