"""Grammars of answers: what they let through, token by token, is what the formats and the client allow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from layerscale_core.constraints import ConstraintCompiler, Grammar
from layerscale_core.dialogue import AnswerPlan, Tool, ToolOffer, WrittenCall
from layerscale_core.dialogue.call_syntax import SYNTAXES, CallSyntax
from layerscale_core.dialogue.grammar import after_reasoning, answer_grammar, matching
from layerscale_core.dialogue.reasoning import MARKERS, Reasoning
from layerscale_core.errors import GrammarError
from tests.support.fake_tokenizer import ByteTokenizer

THINK = MARKERS[0]
TOOLS = (
    Tool("f", {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}),
    Tool("ff", {"properties": {"y": {"type": "string"}}, "required": ["y"]}, "Another."),
    Tool("nothing", {}),
)
CALLS = [WrittenCall("ff", {"y": 'a } " <tool_call> ü'}), WrittenCall("f", {"x": -3}), WrittenCall("nothing", {})]
ALL_MARKERS = tuple(dict.fromkeys([*(m for syntax in SYNTAXES for m in syntax.markers), THINK.begin, THINK.end]))

by_syntax = pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
by_vocabulary = pytest.mark.parametrize("has_tokens", [False, True], ids=["text", "tokens"])


class Judge:
    """Says what becomes of an answer under a grammar."""

    def __init__(self, grammar: Grammar, tokenizer: ByteTokenizer) -> None:
        self._constraint = ConstraintCompiler(tokenizer).compile(grammar)
        self._tokenizer = tokenizer

    def takes(self, text: str, *, as_tokens: bool = True) -> bool:
        """Whether the answer may be this, and end."""
        matcher = self._constraint.begin()
        token_ids = self._tokenizer.encode(text, add_special=False, parse_special=as_tokens)
        for token_id in token_ids:
            if matcher.is_finished or not matcher.try_accept(token_id):
                return False
        return matcher.is_finished or matcher.try_accept(ByteTokenizer.EOS_ID)


def vocabulary(has_tokens: bool) -> tuple[ByteTokenizer, dict[str, int]]:
    if not has_tokens:
        return ByteTokenizer(), {}
    return ByteTokenizer(*ALL_MARKERS), {marker: 258 + index for index, marker in enumerate(ALL_MARKERS)}


def judge(syntax: CallSyntax, has_tokens: bool, reasoning: Reasoning = Reasoning.NONE, **offered: Any) -> Judge:
    tokenizer, control_ids = vocabulary(has_tokens)
    offer = ToolOffer(TOOLS, **offered)
    return Judge(answer_grammar(syntax, offer, control_ids, THINK, reasoning), tokenizer)


def call(syntax: CallSyntax, *calls: WrittenCall) -> str:
    """The calls as tokens of the vocabulary; a string among the arguments never holds a marker."""
    return syntax.write(calls or [CALLS[1]])


@by_vocabulary
@by_syntax
def test_free_answers_are_text_or_calls_or_calls_after_text(syntax: CallSyntax, has_tokens: bool) -> None:
    free = judge(syntax, has_tokens)
    for text in ("", "It rains.", "{ so } <tool", "\n\n"):
        assert free.takes(text)
    assert free.takes(call(syntax))
    assert not free.takes(call(syntax)[:-1])
    assert not free.takes(call(syntax) + " and that is all")
    assert not free.takes(syntax.trigger)
    if not syntax.is_anchored:
        assert free.takes("Let me see.\n" + call(syntax))
        assert not free.takes(f"x {syntax.trigger}", as_tokens=False)


@by_vocabulary
@by_syntax
def test_names_and_arguments_are_valid(syntax: CallSyntax, has_tokens: bool) -> None:
    free = judge(syntax, has_tokens)
    assert all(free.takes(call(syntax, each)) for each in CALLS[1:])
    assert free.takes(call(syntax, WrittenCall("ff", {"y": 'a } " ü'})))
    wrong = [("g", {"x": 1}), ("f", {"x": "1"}), ("f", {}), ("f", {"x": 1, "z": 1}), ("nothing", {"x": 1}), ("f", "[]")]
    for name, arguments in wrong:
        assert not free.takes(call(syntax, WrittenCall(name, arguments)))


@by_vocabulary
@by_syntax
def test_as_many_calls_as_the_format_and_the_client_allow(syntax: CallSyntax, has_tokens: bool) -> None:
    two = call(syntax, *CALLS[1:])
    can_repeat = syntax.separator is not None
    assert judge(syntax, has_tokens).takes(two) == can_repeat
    assert judge(syntax, has_tokens, is_required=True).takes(two) == can_repeat
    assert not judge(syntax, has_tokens, is_parallel=False).takes(two)
    assert not judge(syntax, has_tokens, only="f").takes(two)


@by_vocabulary
@by_syntax
def test_forced_answers_are_calls_and_a_named_tool_is_the_only_one(syntax: CallSyntax, has_tokens: bool) -> None:
    for forced in (judge(syntax, has_tokens, is_required=True), judge(syntax, has_tokens, only="f")):
        assert forced.takes(call(syntax))
        assert not forced.takes("")
        assert not forced.takes("It rains.")
        assert not forced.takes("\n" + call(syntax))
    assert not judge(syntax, has_tokens, only="ff").takes(call(syntax))


@by_vocabulary
@by_syntax
@pytest.mark.parametrize("is_required", [False, True])
def test_reasoning_comes_first_and_says_what_it_likes(syntax: CallSyntax, has_tokens: bool, is_required: bool) -> None:
    thought = "hm { \n [x] </thin so"
    for reasoning, begin in ((Reasoning.POSSIBLE, THINK.begin), (Reasoning.BEGUN, "")):
        reasoned = judge(syntax, has_tokens, reasoning, is_required=is_required)
        for gap in ("", "\n\n"):
            assert reasoned.takes(f"{begin}{thought}{THINK.end}{gap}{call(syntax)}")
        assert reasoned.takes(f"{begin}{thought}{THINK.end}\n\nIt rains.") != is_required
        assert not reasoned.takes(f"{begin}{thought}{THINK.end}{call(syntax, WrittenCall('g', {}))}")
        assert not reasoned.takes(begin + thought)
    assert judge(syntax, has_tokens, Reasoning.POSSIBLE, is_required=is_required).takes(call(syntax))


@by_vocabulary
@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (Grammar.json_schema({"type": "object", "properties": {"a": {"type": "null"}}}), '{"a": null}', '{"a": 1}'),
        (Grammar.choice(["yes", 'n"o/']), 'n"o/', "maybe"),
        (Grammar.regex(r"a/b\/c\\\d+"), "a/b/c\\42", "a/b/c"),
    ],
)
@pytest.mark.parametrize("reasoning", [Reasoning.POSSIBLE, Reasoning.BEGUN])
def test_what_must_be_matched_is_matched_after_the_reasoning(
    grammar: Grammar, good: str, bad: str, reasoning: Reasoning, has_tokens: bool
) -> None:
    tokenizer, control_ids = vocabulary(has_tokens)
    rules = after_reasoning(matching(grammar), control_ids, THINK, reasoning)
    begin = THINK.begin if reasoning is Reasoning.POSSIBLE else ""
    judged = Judge(rules, tokenizer)
    for gap in ("", "\n\n"):
        assert judged.takes(f"{begin}hm{THINK.end}{gap}{good}")
        assert not judged.takes(f"{begin}hm{THINK.end}{gap}{bad}")
    assert judged.takes(good) == (reasoning is Reasoning.POSSIBLE)


def test_rules_of_the_clients_own_leave_no_place_for_reasoning() -> None:
    rules = Grammar.lark('start: "x"')
    possible, begun = (
        AnswerPlan(None, THINK, reasoning, {}, None) for reasoning in (Reasoning.POSSIBLE, Reasoning.BEGUN)
    )
    assert possible.constrained(rules) is rules
    with pytest.raises(GrammarError, match="cannot follow the reasoning"):
        begun.constrained(rules)


ANSWERS = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "nation": {"type": "string"}},
    "additionalProperties": {"type": "array"},
}


@by_vocabulary
@by_syntax
@pytest.mark.parametrize("reasoning", [Reasoning.NONE, Reasoning.POSSIBLE, Reasoning.BEGUN])
def test_beside_a_schema_an_answer_is_a_call_or_what_matches(
    syntax: CallSyntax, has_tokens: bool, reasoning: Reasoning
) -> None:
    tokenizer, control_ids = vocabulary(has_tokens)
    judged = Judge(answer_grammar(syntax, ToolOffer(TOOLS), control_ids, THINK, reasoning, schema=ANSWERS), tokenizer)
    begin = {Reasoning.NONE: "", Reasoning.POSSIBLE: THINK.begin, Reasoning.BEGUN: ""}[reasoning]
    before = "" if reasoning is Reasoning.NONE else f"{begin}hm{THINK.end}"
    for gap in ("", "\n\n") if before else ("",):
        assert all(judged.takes(before + gap + call(syntax, each)) for each in CALLS[1:])
        for text in (
            "{}",
            '{"name": "f"}',
            '{"name": "f", "nation": "<x"}',
            '{"nation": ""}',
            '{"name": "fff", "n": []}',
        ):
            assert judged.takes(before + gap + text), text
    wrong = ["It rains.", '{"name": 1}', '{"name": "f", "n": 1}', "", "[]", call(syntax, WrittenCall("g", {"x": 1}))]
    for text in [*wrong, call(syntax, WrittenCall("f", {"x": "1"})), "{} " + call(syntax)]:
        assert not judged.takes(before + text), text
    assert judged.takes(before + call(syntax, *CALLS[1:])) == (syntax.separator is not None)


@by_syntax
def test_a_schema_has_no_part_in_an_answer_that_must_be_a_call(syntax: CallSyntax) -> None:
    offer = ToolOffer(TOOLS, is_required=True)
    assert answer_grammar(syntax, offer, {}, schema=ANSWERS) == answer_grammar(syntax, offer, {})


def test_a_schema_that_cannot_be_held_to_is_refused_by_name() -> None:
    offer = ToolOffer((Tool("f", {"type": "object", "not": {}}),))
    with pytest.raises(GrammarError, match="not is not supported"):
        answer_grammar(SYNTAXES[0], offer, {})


def test_members_are_closed_unless_the_schema_says_otherwise() -> None:
    open_schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    assert Tool("f", {"type": "object"}).arguments_schema["additionalProperties"] is False
    assert Tool("f", open_schema).arguments_schema["additionalProperties"] == {"type": "integer"}
    assert "additionalProperties" not in Tool("f", {"anyOf": [{}]}).arguments_schema
    assert json.dumps(Tool("f", open_schema).function) == json.dumps({"name": "f", "parameters": open_schema})


def test_sixty_tools_of_a_usual_size_are_not_too_many() -> None:
    members = {f"the_member_number_{index}": {"type": "string", "description": "x" * 200} for index in range(8)}
    tools = tuple(Tool(f"tool_{index}", {"type": "object", "properties": members}, "y" * 500) for index in range(60))
    syntax = SYNTAXES[0]
    judged = Judge(answer_grammar(syntax, ToolOffer(tools), {}), ByteTokenizer())
    assert judged.takes(syntax.write([WrittenCall("tool_59", {"the_member_number_7": "x"})]))
    assert not judged.takes(syntax.write([WrittenCall("tool_60", {})]))
