"""The grammar of an answer with tools, in llguidance's Lark: free text until a call begins, then nothing but calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from layerscale_core.constraints import Grammar, GrammarKind, embedded_schema
from layerscale_core.dialogue.call_syntax import CallSyntax
from layerscale_core.dialogue.reasoning import Reasoning, ReasoningMarkers
from layerscale_core.dialogue.tools import Tool, ToolOffer
from layerscale_core.errors import GrammarError

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
) -> Grammar:
    """What an answer may be when tools are offered.

    Raises:
        GrammarError: a tool's schema has what is not supported.
    """
    answer = ["answer: first"] if offer.must_call else _free_answer(syntax, control_ids)
    begins_after_space = reasoning is not Reasoning.NONE
    calls = _calls(syntax, offer, control_ids, gap="GAP? " if begins_after_space else "")
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
    prelude = f"{_literal(syntax.prelude, control_ids)}? " if syntax.prelude in control_ids else ""
    if syntax.trigger in control_ids:
        yield f"first: {gap}{_literal(syntax.trigger, control_ids)} rest"
    else:
        yield f"first: {prelude}TRIGGER rest"
        yield f"TRIGGER: {gap}{json.dumps(syntax.trigger)}"
    following = ""
    if offer.may_repeat and syntax.separator is not None:
        following = f"({_literal(syntax.separator + syntax.open, control_ids)} call)*"
    opening = _literal(syntax.opening.removeprefix(syntax.trigger), control_ids)
    yield " ".join(["rest:", opening, "call", following, _literal(syntax.end, control_ids)])
    yield "call: " + " | ".join(f"call_{index}" for index in range(len(tools)))
    for index, tool in enumerate(tools):
        yield from _call(syntax, index, tool, control_ids)


def _call(syntax: CallSyntax, index: int, tool: Tool, control_ids: ControlIds) -> Iterator[str]:
    head, tail = _literal(tool.name + syntax.middle, control_ids), _literal(syntax.close, control_ids)
    yield f"call_{index}: {head} arguments_{index} {tail}"
    yield f"arguments_{index}: {embedded_schema(tool.arguments_schema)}"


def _literal(text: str, control_ids: ControlIds) -> str:
    """A text as the sequence of strings and control tokens that it is; "" for none."""
    parts = re.split(f"({'|'.join(map(re.escape, control_ids))})", text) if control_ids else [text]
    return " ".join(f"<[{control_ids[part]}]>" if part in control_ids else json.dumps(part) for part in parts if part)
