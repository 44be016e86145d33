"""Answers taken apart: every format, cut at every place, whole and cut off."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.dialogue import (
    AnswerParser,
    CallArguments,
    CallBegun,
    CallEnded,
    CallSyntax,
    Piece,
    ReasoningPiece,
    TextPiece,
    WrittenCall,
)
from layerscale_core.dialogue.call_syntax import SYNTAXES
from layerscale_core.dialogue.reasoning import MARKERS, Reasoning

CALLS = [WrittenCall("look", {"at": 'a } " \\ <tool_call> [', "in": [{"x": []}]}), WrittenCall("no_arguments", {})]
NESTED = json.dumps(CALLS[0].arguments)


@dataclass
class Read:
    """The pieces of an answer, joined."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    num_ended: int = 0


def joined(pieces: Iterable[Piece]) -> Read:
    """The pieces joined, which must come in order."""
    read = Read()
    for piece in pieces:
        match piece:
            case TextPiece(text):
                read.text += text
            case ReasoningPiece(text):
                assert not read.text
                assert not read.calls
                read.reasoning += text
            case CallBegun(index, name):
                assert index == len(read.calls) == read.num_ended
                read.calls.append((name, ""))
            case CallArguments(index, text):
                assert text
                assert index == len(read.calls) - 1 == read.num_ended
                read.calls[index] = (read.calls[index][0], read.calls[index][1] + text)
            case CallEnded(index):
                assert index == read.num_ended
                read.num_ended += 1
    return read


def read(parts: Sequence[str], syntax: CallSyntax | None = None, reasoning: Reasoning = Reasoning.NONE) -> Read:
    parser = AnswerParser(syntax, MARKERS[0], reasoning)
    pieces = [piece for part in parts for piece in parser.push(part)]
    return joined([*pieces, *parser.finish()])


def calls_of(syntax: CallSyntax) -> list[WrittenCall]:
    return CALLS[:1] if syntax.separator is None else CALLS


by_syntax = pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)


@by_syntax
def test_calls_are_read_as_they_were_written_wherever_they_are_cut(syntax: CallSyntax) -> None:
    calls = calls_of(syntax)
    before = "" if syntax.is_anchored else "Let me <tool see.\n\n"
    text = before + syntax.write(calls)
    expected = Read(
        text=before.rstrip(),
        calls=[(call.name, json.dumps(call.arguments)) for call in calls],
        num_ended=len(calls),
    )
    for cut in range(len(text) + 1):
        assert read([text[:cut], text[cut:]], syntax) == expected
    assert read(list(text), syntax) == expected


@by_syntax
def test_an_answer_cut_off_at_any_place_never_shows_half_a_call_as_text(syntax: CallSyntax) -> None:
    [call, *_] = calls_of(syntax)
    text = syntax.write([call])
    arguments = json.dumps(call.arguments)
    for end in range(len(syntax.opening), len(text) + 1):
        cut_off = read([text[:end]], syntax)
        assert cut_off.text == ""
        assert all(name == call.name and arguments.startswith(begun) for name, begun in cut_off.calls)
    whole_opening = text.index(arguments)
    assert read([text[: whole_opening - 1]], syntax).calls == []
    assert read([text[:whole_opening]], syntax).calls == [(call.name, "")]
    assert read([text[: whole_opening + 9]], syntax) == Read(calls=[(call.name, arguments[:9])])


@by_syntax
def test_text_without_a_call_is_shown_as_it_is(syntax: CallSyntax) -> None:
    for text in ("", " ", "plain", "  plain <tool_ [TOOL {", "{ 1 }", '{"names": 1}', "a\n\n", syntax.trigger[:-1]):
        assert read(list(text), syntax) == Read(text=text)


def test_text_is_not_held_back_longer_than_it_may_be_a_marker() -> None:
    hermes = SYNTAXES[0]
    parser = AnswerParser(hermes)
    assert parser.push("I see ") == [TextPiece("I see")]
    assert parser.push("<tool") == []
    assert parser.push("box>") == [TextPiece(" <toolbox>")]
    assert parser.push(" <tool_call>") == []
    assert parser.push('\n{"name": "f", "arguments": ') == [CallBegun(0, "f")]
    assert parser.push('{"a": ') == [CallArguments(0, '{"a": ')]
    assert parser.push("1}}\n</tool_call>") == [CallArguments(0, "1}"), CallEnded(0)]
    assert parser.finish() == []


def test_what_is_no_call_after_all_is_text() -> None:
    assert read(["so <tool_call>{no"], SYNTAXES[0]) == Read(text="so<tool_call>{no")
    after = SYNTAXES[0].write(CALLS[1:]) + " done"
    assert read(list(after), SYNTAXES[0]) == Read(text=" done", calls=[("no_arguments", "{}")], num_ended=1)


@by_syntax
def test_where_a_call_must_begin_the_answer_all_else_is_text_to_its_end(syntax: CallSyntax) -> None:
    def read_either(parts: Iterable[str]) -> Read:
        starts = [syntax.begin + syntax.opening_of(name) for name in ("look", "lookup")]
        parser = AnswerParser(syntax, call_starts=starts)
        pieces = [piece for part in parts for piece in parser.push(part)]
        return joined([*pieces, *parser.finish()])

    written = syntax.write(CALLS[:1])
    assert read_either(written) == Read(calls=[("look", NESTED)], num_ended=1)
    others = [f'["{written}"]', syntax.write([WrittenCall("loo", {})]), syntax.write([WrittenCall("looks", {})])]
    for text in ["", "{}", '{"name": "look"}', '{"name": "Ann", "age": 3}', *others]:
        for cut in range(len(text) + 1):
            assert read_either([text[:cut], text[cut:]]) == Read(text=text)


def test_llamas_tag_may_precede_a_call() -> None:
    text = "<|python_tag|>" + SYNTAXES[-1].write(CALLS[:1])
    expected = Read(calls=[("look", NESTED)], num_ended=1)
    for cut in range(len(text) + 1):
        assert read([text[:cut], text[cut:]], SYNTAXES[-1]) == expected


@pytest.mark.parametrize("syntax", [None, *SYNTAXES])
@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("<think>\nhm <tool_call> {</think>\n\n", Reasoning.POSSIBLE),
        ("\nhm <tool_call> {\n</think>\n", Reasoning.BEGUN),
    ],
)
def test_reasoning_is_told_apart_from_text_and_calls(
    syntax: CallSyntax | None, text: str, reasoning: Reasoning
) -> None:
    answers = {"It is 4.\n": Read("It is 4.\n", "hm <tool_call> {")}
    if syntax is not None:
        answers[syntax.write(CALLS[:1])] = Read("", "hm <tool_call> {", [("look", NESTED)], 1)
    for answer, expected in answers.items():
        whole = text + answer
        for cut in range(len(whole) + 1):
            assert read([whole[:cut], whole[cut:]], syntax, reasoning) == expected
        assert read(list(whole), syntax, reasoning) == expected


def test_reasoning_that_was_cut_off_is_still_reasoning() -> None:
    assert read(["<think>hm </thi"], None, Reasoning.POSSIBLE) == Read(reasoning="hm </thi")
    assert read(["<thi"], None, Reasoning.POSSIBLE) == Read(text="<thi")
    assert read(["no <think>hm</think>"], None, Reasoning.POSSIBLE) == Read(text="no <think>hm</think>")
    assert read(["<think></think>4"], None, Reasoning.POSSIBLE) == Read(text="4")
    assert read(["<think>4</think>"], None, Reasoning.NONE) == Read(text="<think>4</think>")


FRAGMENTS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|tool_call|>", "\n", " ", "f"),
    *('{"name": "', '", "arguments": ', '", "parameters": ', "{}", '{"a":"}\\""}', "}", "[", "]", ", ", "\\", '"'),
)
PARTS = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)


@settings(max_examples=400, deadline=None)
@given(
    text=PARTS,
    syntax=st.sampled_from([None, *SYNTAXES]),
    reasoning=st.sampled_from(Reasoning),
    cuts=st.lists(st.integers(0, 120), max_size=8),
)
def test_cuts_change_nothing(text: str, syntax: CallSyntax | None, reasoning: Reasoning, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[start:end] for start, end in pairwise(bounds)]
    assert read(parts, syntax, reasoning) == read([text], syntax, reasoning)
