"""Random JSON schemas of the kinds that people write, from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

WORDS = ["name", "age", "größe", "is_open", "tags", "x y", "Ω", 'quo"te', "address", "id", "状態", "a\\b"]
PATTERNS = ["^[A-Z]{2}-[0-9]{3}$", "^(red|green|blue)$", "^\\d{4}-\\d{2}$", "[aeiou]{2}"]
FORMATS = ["date", "date-time", "time", "uuid", "ipv4", "email"]


def random_schema(seed: int) -> Schema:
    """A schema with a definition or two that it may refer to."""
    chance = random.Random(seed)
    schema = _any(chance, depth=0)
    if chance.random() < 0.2:
        schema = {"type": "object", "properties": {"node": {"$ref": "#/$defs/node"}}, "required": ["node"]}
        schema |= {"additionalProperties": False, "$defs": {"node": _tree(chance)}}
    return schema | {"title": f"Schema {seed}", "description": "random"}


def _any(chance: random.Random, depth: int) -> Schema:
    makers: list[Callable[[random.Random, int], Schema]] = [_text, _number, _listed, _simple]
    if depth < 3:
        makers += [_object, _object, _object, _array, _union]
    return chance.choice(makers)(chance, depth)


def _text(chance: random.Random, _depth: int) -> Schema:
    kind = chance.randrange(4)
    if kind == 0:
        return {"type": "string", "pattern": chance.choice(PATTERNS), "maxLength": 12}
    if kind == 1:
        return {"type": "string", "format": chance.choice(FORMATS)}
    least = chance.randrange(3)
    return {"type": "string", "minLength": least, "maxLength": least + chance.randrange(1, 12)}


def _number(chance: random.Random, _depth: int) -> Schema:
    low = chance.randrange(-1000, 1000)
    bounds = {"minimum": low, "maximum": low + chance.randrange(1, 5000)}
    kind = chance.randrange(4)
    if kind == 0:
        return {"type": "integer", "minimum": 0, "maximum": 900, "multipleOf": chance.choice([2, 5, 7, 25])}
    if kind == 1:
        return {"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": low + 500}
    return {"type": chance.choice(["integer", "number"]), **bounds}


def _listed(chance: random.Random, _depth: int) -> Schema:
    values = [*chance.sample(WORDS, 3), chance.randrange(100), True, None]
    return {"const": chance.choice(values)} if chance.random() < 0.3 else {"enum": values[: chance.randrange(1, 7)]}


def _simple(chance: random.Random, _depth: int) -> Schema:
    return {"type": chance.choice(["boolean", "null", ["boolean", "null"]])}


def _object(chance: random.Random, depth: int) -> Schema:
    names = chance.sample(WORDS, chance.randrange(1, 5))
    schema: Schema = {"type": "object", "properties": {name: _any(chance, depth + 1) for name in names}}
    schema["required"] = [name for name in names if chance.random() < 0.7]
    schema["additionalProperties"] = chance.random() < 0.1
    return schema


def _array(chance: random.Random, depth: int) -> Schema:
    least = chance.randrange(3)
    schema: Schema = {"type": "array", "items": _any(chance, depth + 1), "minItems": least, "maxItems": least + 2}
    if chance.random() < 0.2:
        schema["prefixItems"] = [_any(chance, depth + 1)]
    return schema


def _union(chance: random.Random, depth: int) -> Schema:
    return {"anyOf": [_any(chance, depth + 1) for _ in range(chance.randrange(2, 4))]}


def _tree(chance: random.Random) -> Schema:
    return {
        "type": "object",
        "properties": {
            "value": _number(chance, 0),
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
        },
        "required": ["value", "next"],
        "additionalProperties": False,
    }
