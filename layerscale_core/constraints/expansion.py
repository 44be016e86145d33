"""How long a text a grammar can force at most, estimated from above, before anything is compiled.

Forced text is walked through at once, in one step of the engine, so that a few counts multiplied, ``(a{1000}){1000}``,
would hold up everybody. What is counted is every character of the grammar, times the counts of repetition around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from layerscale_core.constraints.lark_rules import tokens_of

_REGEX_TOKEN = re.compile(
    r"""
    (?P<count>\{\d*,?\d*\})
    | (?P<atom>\\[pPxuU]\{[^}]*\} | \\. | \[\^?\]?(?:\\.|[^\]\\])*\] | [^()|*+?{}])
    | (?P<open>\()
    | (?P<close>\))
    | .""",
    re.VERBOSE | re.DOTALL,
)


def regex_size(pattern: str) -> int:
    """Characters of a regular expression, repetition multiplied out."""
    return _size(_REGEX_TOKEN.finditer(pattern), lambda _token: 1)


def lark_size(bodies: Mapping[str, str]) -> int:
    """Characters of the largest rule of a grammar, repetition and rules within rules multiplied out."""
    sizes: dict[str, int] = {}

    def size_of_rule(name: str) -> int:
        if name not in sizes:
            sizes[name] = 1  # as a rule within itself counts
            sizes[name] = _size(tokens_of(bodies.get(name, "")), size_of_token)
        return sizes[name]

    def size_of_token(token: re.Match[str]) -> int:
        if token["regex"] is not None:
            return regex_size(token["regex"])
        return size_of_rule(token["name"]) if token["name"] is not None else len(token[0])

    return max(map(size_of_rule, bodies), default=0)


def schema_size(root: Mapping[str, Any]) -> int:
    """Characters that a schema can ask for at least, in the longest of its alternatives."""
    sizes: dict[str, int] = {}

    def size_of(schema: Any) -> int:
        if not isinstance(schema, dict):
            return 1
        own = max((len(repr(value)) for value in (schema.get("const", 0), *schema.get("enum", ()))), default=0)
        own += regex_size(schema["pattern"]) if isinstance(schema.get("pattern"), str) else 0
        own += sum(map(len, schema.get("properties", ())))
        together = [*schema.get("properties", {}).values(), *schema.get("prefixItems", ()), *schema.get("allOf", ())]
        choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        repeated = schema["minItems"] if isinstance(schema.get("minItems"), int) else 1
        own += max(repeated, 1) * size_of(schema.get("items"))
        own += sum(map(size_of, together)) + max(map(size_of, choices), default=0)
        return own + size_of_reference(schema.get("$ref"))

    def size_of_reference(pointer: Any) -> int:
        name = pointer.rsplit("/", 1)[-1] if isinstance(pointer, str) else ""
        if name not in sizes:
            sizes[name] = 0  # as a reference within itself counts
            defined = [root.get(keyword, {}).get(name) for keyword in ("$defs", "definitions")]
            sizes[name] = sum(size_of(each) for each in defined if each is not None)
        return sizes[name]

    return size_of(root)


def _size(tokens: Iterator[re.Match[str]], size_of: Callable[[re.Match[str]], int]) -> int:
    """The size of an expression: its longest alternative, each part times the counts that follow it or its group.

    The bars of a regular expression are no tokens of their own, so that there all alternatives count.
    """
    outer: list[tuple[int, int]] = []
    longest = total = last = 0
    for token in tokens:
        if token.lastgroup == "count":
            numbers = [int(number) for number in re.findall(r"\d{1,9}", token["count"])]
            repeated = last * max(numbers, default=1)
            total, last = total - last + repeated, repeated
        elif token.lastgroup == "bar":
            longest, total, last = max(longest, total), 0, 0
        elif token.lastgroup == "open":
            outer.append((longest, total))
            longest = total = last = 0
        elif token.lastgroup == "close" and outer:
            last = max(longest, total)
            longest, total = outer.pop()
            total += last
        elif token.lastgroup in ("atom", "text", "regex", "name"):
            last = size_of(token)
            total += last
    return max(longest, total) + sum(before + after for before, after in outer)
