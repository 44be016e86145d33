"""The rules of a grammar, taken apart far enough to judge them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from layerscale_core.errors import GrammarError

_RULE = re.compile(r"^[ \t]*[?!]?([A-Za-z_][\w-]*)[^:\n\"/]*:", re.MULTILINE)
_TOKEN = re.compile(
    r"""
    (?P<count>\{\d*,?\d*\} | ~\s*\d+(?:\s*\.\.\s*\d+)?)
    | (?P<text>"(?:\\.|[^"\\])*")
    | /(?P<regex>(?:\\.|[^/\\\n])+)/
    | (?P<name>[A-Za-z_][\w-]*)
    | (?P<open>[(\[])
    | (?P<close>[)\]])
    | (?P<bar>\|)
    | (?P<optional>[*?])
    | .""",
    re.VERBOSE | re.DOTALL,
)
_NOT_JUDGED = re.compile(r"::|@|%(?!json|regex|ignore|import)\w+")
_EMBEDDED = re.compile(r"%json\s*")


def rule_bodies(rules: str) -> dict[str, str]:
    """What each rule says, by its name.

    Raises:
        GrammarError: rules within rules, with parameters or with conditions, which nobody has judged.
    """
    bare = "".join(token[0] for token in tokens_of(rules) if token.lastgroup not in ("text", "regex"))
    starts = list(_RULE.finditer(rules))
    if _NOT_JUDGED.search(bare) or len({start[1] for start in starts}) < len(starts):
        raise GrammarError("a grammar may have neither parameters, conditions, nested grammars nor one rule twice")
    ends = [each.start() for each in starts[1:]] + [len(rules)]
    return {start[1]: rules[start.end() : end] for start, end in zip(starts, ends, strict=False)}


def tokens_of(body: str) -> Iterator[re.Match[str]]:
    """The parts of a rule: each of one named group, or of none where it says nothing that is judged."""
    return _TOKEN.finditer(body)


def without_schemas(rules: str, size_of: Callable[[Any], int]) -> str:
    """The rules with each embedded schema replaced by a text as long as ``size_of`` says.

    Raises:
        GrammarError: one is not JSON, or ``size_of`` refuses it.
    """
    pieces, position = [], 0
    while (found := _EMBEDDED.search(rules, position)) is not None:
        try:
            schema, end = json.JSONDecoder().raw_decode(rules, found.end())
        except (ValueError, RecursionError):
            raise GrammarError("a grammar should have JSON behind %json") from None
        pieces += [rules[position : found.start()], f'"{"x" * size_of(schema)}"']
        position = end
    return "".join([*pieces, rules[position:]])
