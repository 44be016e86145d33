"""The grammar of an answer with tools, in llguidance's Lark: free text until a call begins, then nothing but calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from layerscale_core.constraints import Grammar, GrammarKind, embedded_schema
from layerscale_core.dialogue.call_syntax import CallSyntax
from layerscale_core.dialogue.reasoning import Reasoning, ReasoningMarkers
from layerscale_core.dialogue.tools import Tool, ToolOffer
from layerscale_core.errors import GrammarError

_JSON_LEXEME = re.compile(r'"[^"]*"|[:,] |.')
_REGEX_IN_RULES = re.compile(r"\\.|/|\n", re.DOTALL)

ControlIds = Mapping[str, int]
"""Markers that are control tokens, which a grammar names by id: their text alone would be something else."""

_TERMINALS = r"""
ANY: /(.|\n)*/
SPACE: /[ \t\r\n]*/
GAP: /[ \t\r\n]{1,4}/
"""


def answer_grammar(
    syntax: CallSyntax,
    offer: ToolOffer,
    control_ids: ControlIds,
    markers: ReasoningMarkers | None = None,
    reasoning: Reasoning = Reasoning.NONE,
    *,
    schema: Any = None,
) -> Grammar:
    """What an answer may be when tools are offered.

    Args:
        schema: what an answer without a call must match, as JSON; None: any text will do, and text before calls too.

    Raises:
        GrammarError: a schema has what is not supported.
    """
    gap = "" if reasoning is Reasoning.NONE else "GAP? "
    is_either = schema is not None and not offer.must_call
    write_calls = _calls_like_json if is_either and syntax.trigger.startswith("{") else _calls
    calls = write_calls(syntax, offer, control_ids, gap)
    if offer.must_call:
        answer = ["answer: first"]
    elif is_either:
        answer = [f"answer: {gap}matching | first", f"matching: {embedded_schema(schema)}"]
    else:
        answer = [*_free_answer(syntax, control_ids)]
    return after_reasoning("\n".join([*answer, *calls]), control_ids, markers, reasoning)


def after_reasoning(
    answer_rules: str, control_ids: ControlIds, markers: ReasoningMarkers | None, reasoning: Reasoning
) -> Grammar:
    """A grammar that lets a model reason first, and constrains what comes then.

    Args:
        answer_rules: define ``answer``; they may use ``FREE``, any text that does not begin as reasoning does.
    """
    if markers is None or reasoning is Reasoning.NONE:
        head = ["start: answer", "FREE: ANY"]
    elif reasoning is Reasoning.BEGUN:
        head = ["start: thought answer", _thought(markers, control_ids, "ANY"), "FREE: ANY"]
    elif markers.begin in control_ids:
        begin = _literal(markers.begin, control_ids)
        head = [f"start: ({begin} thought)? answer", _thought(markers, control_ids, "ANY"), "FREE: ANY"]
    else:
        begun = f"SPACE {json.dumps(markers.begin)} ANY"
        thought = _thought(markers, control_ids, "BEGUN")
        head = ["start: (thought)? answer", thought, f"BEGUN: {begun}", f"FREE: ANY & ~({begun})"]
    return Grammar.lark("\n".join([*head, _TERMINALS, answer_rules, ""]))


def matching(grammar: Grammar) -> str:
    """The rule of an answer that must match a grammar, with space before it.

    Raises:
        GrammarError: a schema has what is not supported, or it is a grammar of rules of its own.
    """
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            body = embedded_schema(json.loads(grammar.text))
        case GrammarKind.CHOICE:
            body = " | ".join(map(json.dumps, json.loads(grammar.text)))
        case GrammarKind.REGEX:
            body = f"/{_REGEX_IN_RULES.sub(_as_in_rules, grammar.text)}/"
        case GrammarKind.LARK:
            raise GrammarError("a grammar cannot follow the reasoning that this prompt begins")
    return f"answer: GAP? matching\nmatching: {body}"


def _as_in_rules(part: re.Match[str]) -> str:
    """A part of a regular expression as it stands between the slashes of a rule."""
    return {"/": r"\x2F", r"\/": r"\x2F", "\n": r"\n"}.get(part[0], part[0])


def _thought(markers: ReasoningMarkers, control_ids: ControlIds, body: str) -> str:
    if markers.end in control_ids:
        return f"thought: {body} {_literal(markers.end, control_ids)}"
    return f"thought[suffix={json.dumps(markers.end)}]: {body}"


def _free_answer(syntax: CallSyntax, control_ids: ControlIds) -> Iterator[str]:
    """Text, calls, or calls after text."""
    trigger = json.dumps(syntax.trigger)
    if syntax.is_anchored:
        yield "answer: TEXT | first"
        yield f"TEXT: FREE & ~(SPACE {trigger} ANY)"
        return
    yield f"TEXT: FREE & ~(ANY {trigger} ANY)"  # also where it is a token: what spells it would be taken for it
    if syntax.trigger in control_ids:
        yield "answer: TEXT first?"
    else:
        yield "answer: TEXT | text_and_trigger rest"
        yield f"text_and_trigger[suffix={trigger}]: FREE"


def _calls(syntax: CallSyntax, offer: ToolOffer, control_ids: ControlIds, gap: str) -> Iterator[str]:
    """``first`` begins with the trigger, ``rest`` is what follows it."""
    tools = offer.callable_tools
    if syntax.trigger in control_ids:
        yield f"first: {gap}{_literal(syntax.trigger, control_ids)} rest"
    else:
        yield f"first: {_prelude(syntax, control_ids)}TRIGGER rest"
        yield f"TRIGGER: {gap}{json.dumps(syntax.trigger)}"
    following = ""
    if offer.may_repeat and syntax.separator is not None:
        following = f"({_literal(syntax.separator + syntax.open, control_ids)} call)*"
    opening = _literal(syntax.opening.removeprefix(syntax.trigger), control_ids)
    yield " ".join(["rest:", opening, "call", following, _literal(syntax.end, control_ids)])
    heads = (_literal(tool.name + syntax.middle, control_ids) for tool in tools)
    yield from _call_rules(tools, heads, _literal(syntax.close, control_ids))


def _calls_like_json(syntax: CallSyntax, offer: ToolOffer, control_ids: ControlIds, gap: str) -> Iterator[str]:
    """The same for one call that is JSON where other JSON may stand.

    Both must be made of the same lexemes: the longest one that fits is taken, and ``{`` is never taken back.
    """
    yield f"first: {gap}{_prelude(syntax, control_ids)}call"
    tools = offer.callable_tools
    heads = (_lexemes(syntax.opening_of(tool.name)) for tool in tools)
    yield from _call_rules(tools, heads, _lexemes(syntax.close))


def _call_rules(tools: Sequence[Tool], heads: Iterable[str], tail: str) -> Iterator[str]:
    yield "call: " + " | ".join(f"call_{index}" for index in range(len(tools)))
    for index, (tool, head) in enumerate(zip(tools, heads, strict=True)):
        yield f"call_{index}: {head} arguments_{index} {tail}"
        yield f"arguments_{index}: {embedded_schema(tool.arguments_schema)}"


def _prelude(syntax: CallSyntax, control_ids: ControlIds) -> str:
    return f"{_literal(syntax.prelude, control_ids)}? " if syntax.prelude in control_ids else ""


def _lexemes(text: str) -> str:
    """A part of JSON as the sequence of strings that llguidance makes of a schema."""
    return " ".join(map(json.dumps, _JSON_LEXEME.findall(text)))


def _literal(text: str, control_ids: ControlIds) -> str:
    """A text as the sequence of strings and control tokens that it is; "" for none."""
    parts = re.split(f"({'|'.join(map(re.escape, control_ids))})", text) if control_ids else [text]
    return " ".join(f"<[{control_ids[part]}]>" if part in control_ids else json.dumps(part) for part in parts if part)
