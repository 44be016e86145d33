"""Grammars to constraints: what is allowed, what is forced, when an answer is complete."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerscale_core.constraints import ConstraintCompiler, Grammar, GrammarLimits, Matcher, embedded_schema
from layerscale_core.constraints.json_schema import prepared
from layerscale_core.errors import GrammarError
from tests.support.fake_tokenizer import ByteTokenizer

EOS = ByteTokenizer.EOS_ID
BOS = ByteTokenizer.BOS_ID
SHARED = ConstraintCompiler(ByteTokenizer())


@pytest.fixture(scope="module")
def compiler() -> ConstraintCompiler:
    return SHARED


def accept(matcher: Matcher, text: str) -> None:
    for token_id in text.encode():
        assert matcher.try_accept(token_id), f"{chr(token_id)!r} of {text!r}"


def is_complete(matcher: Matcher) -> bool:
    return matcher.is_finished or EOS in allowed_ids(matcher)


def allowed_ids(matcher: Matcher, width: int = ByteTokenizer.vocab_size) -> set[int]:
    return set(np.flatnonzero(matcher.allowed(width)).tolist())


POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "required": ["x", "y"]}
CLOSED_POINT = POINT | {"additionalProperties": False}


@pytest.mark.parametrize(
    ("grammar", "texts"),
    [
        (Grammar.json_object(), ["{}", '{"a": [1, null, {"b": "c"}]}']),
        (Grammar.json_schema(CLOSED_POINT), ['{"x": 1, "y": -20}']),
        (Grammar.json_schema(POINT), ['{"x": 1, "y": 2, "z": true}']),
        (Grammar.json_schema(True), ["[1, 2]", "null"]),
        (Grammar.json_schema({"type": "string", "title": "T", "default": "x", "pattern": "^a+$"}), ['"aa"']),
        (Grammar.regex(r"\d{2}-[a-z]+"), ["12-ab"]),
        (Grammar.regex("^abc$"), ["abc"]),
        (Grammar.choice(["yes", "yesterday", 'no"\n\\', "näh"]), ["yes", "yesterday", 'no"\n\\', "näh"]),
        (Grammar.choice(["", "a"]), ["", "a"]),
        (Grammar.lark('start: "<" word ">"\nword: /[a-z]+/'), ["<abc>"]),
    ],
)
def test_accepts_the_texts_it_describes(compiler: ConstraintCompiler, grammar: Grammar, texts: list[str]) -> None:
    for text in texts:
        matcher = compiler.compile(grammar).begin()
        accept(matcher, text)
        assert is_complete(matcher), text


@pytest.mark.parametrize(
    ("grammar", "start", "wrong"),
    [
        (Grammar.json_object(), "", "["),
        (Grammar.json_schema(CLOSED_POINT), '{"x": 1', "}"),
        (Grammar.json_schema(CLOSED_POINT), '{"x": ', '"'),
        (Grammar.regex("[ab]+"), "a", "c"),
        (Grammar.choice(["yes", "no"]), "y", "o"),
    ],
)
def test_refuses_what_it_does_not_describe(
    compiler: ConstraintCompiler, grammar: Grammar, start: str, wrong: str
) -> None:
    matcher = compiler.compile(grammar).begin()
    accept(matcher, start)
    assert ord(wrong) not in allowed_ids(matcher)
    assert not matcher.try_accept(ord(wrong))
    with pytest.raises(GrammarError):
        matcher.accept(ord(wrong))


def test_exactly_what_is_allowed_can_be_accepted(compiler: ConstraintCompiler) -> None:
    text = '{"k": [12.5, "v\\n", {"a": nul'
    for end in range(len(text)):
        matcher = compiler.compile(Grammar.json_object()).begin()
        accept(matcher, text[:end])
        for token_id in set(range(ByteTokenizer.vocab_size)) - allowed_ids(matcher):
            assert not matcher.try_accept(token_id)
        assert matcher.try_accept(ord(text[end])), "being refused changes nothing"


def test_ids_beyond_the_vocabulary_are_never_allowed(compiler: ConstraintCompiler) -> None:
    matcher = compiler.compile(Grammar.regex("(?s:.*)")).begin()
    width = ByteTokenizer.vocab_size + 6  # an embedding may have more rows than there are tokens
    assert max(allowed_ids(matcher, width)) == EOS
    assert not matcher.try_accept(width - 1)


def test_tokens_without_a_choice_are_forced(compiler: ConstraintCompiler) -> None:
    matcher = compiler.compile(Grammar.json_schema(CLOSED_POINT)).begin()
    assert bytes(matcher.forced_tokens()) == b'{"x": '
    accept(matcher, '{"x": 1,')
    assert bytes(matcher.forced_tokens()) == b' "y": '
    accept(matcher, ' "y": 2}')
    assert matcher.is_finished


def test_whether_an_answer_may_begin_with_a_text(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Grammar.json_schema(CLOSED_POINT))
    assert all(constraint.may_begin_with(text) for text in ("", "{", '{"x": 17, "y', '{"x": 1, "y": 2}'))
    assert not any(constraint.may_begin_with(text) for text in ("[", ' {"x"', '{"x": 1, "y": 2} ', '{"x":1'))


def test_special_tokens_of_the_model_can_be_named(compiler: ConstraintCompiler) -> None:
    rules = f'start: "a" <bos> {embedded_schema({"type": "integer", "maximum": 4, "minimum": 3})}'
    matcher = compiler.compile(Grammar.lark(rules)).begin()
    assert matcher.forced_tokens() == [ord("a"), BOS]
    matcher.accept(ord("a"))
    matcher.accept(BOS)
    assert allowed_ids(matcher) == {ord("3"), ord("4")}


def test_matchers_do_not_share_their_state(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Grammar.choice(["ab", "ba"]))
    first, second = constraint.begin(), constraint.begin()
    accept(first, "ab")
    assert (first.is_finished, second.is_finished) == (True, False)
    accept(second, "ba")


def test_equal_grammars_are_compiled_once_and_the_oldest_are_forgotten() -> None:
    compiler = ConstraintCompiler(ByteTokenizer(), max_kept=2)
    first, second, third = (Grammar.regex(letter) for letter in "abc")
    kept = compiler.compile(first)
    compiler.compile(second)
    assert compiler.compile(Grammar.regex("a")) is kept
    compiler.compile(third)
    assert compiler.find(first) is kept
    assert compiler.find(second) is None


TAGGED: dict[str, Any] = {
    "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
    "discriminator": {"propertyName": "kind"},
    "$defs": {
        name: {
            "type": "object",
            "properties": {"kind": {"const": name.lower()}, "n": {"type": "integer"}},
            "required": ["kind", "n"],
            "additionalProperties": False,
        }
        for name in ("Cat", "Dog")
    },
}


def test_a_union_of_classes_that_a_property_tells_apart(compiler: ConstraintCompiler) -> None:
    matcher = compiler.compile(Grammar.json_schema(TAGGED)).begin()
    accept(matcher, '{"kind": "dog", "n": 3}')
    assert matcher.is_finished


@pytest.mark.parametrize(
    ("schema", "keyword", "value"),
    [
        ({"type": "integer"}, "format", "int64"),
        ({"type": "array"}, "uniqueItems", False),
        ({"type": "object"}, "propertyNames", {"type": "string"}),
        ({"type": "object"}, "propertyNames", {}),
        ({"type": "object"}, "propertyNames", True),
        ({"type": "string"}, "x-order", 1),
    ],
)
def test_what_generators_of_schemas_add_without_meaning_is_left_out(schema: Any, keyword: str, value: Any) -> None:
    limits = GrammarLimits()
    assert prepared(schema | {keyword: value}, limits) == prepared(schema, limits)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {}}, "not"),
        ({"type": "object", "propertyNames": {"pattern": "a"}}, "propertyNames"),
        ({"type": ["integer", "string"], "format": "int64"}, "format"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"properties": {"a": {"if": {}, "then": {}}}}, "if"),
        ({"type": "object", "dependentRequired": {}}, "dependentRequired"),
        ({"type": "object", "x-guidance": {"lenient": True}}, "x-guidance"),
        ({"type": "string", "minlength": 3}, "minlength"),
        ({"type": "string", "format": "color"}, "format"),
        ({"type": "object", "minProperties": 2}, "minProperties"),
        ({"properties": []}, "properties"),
        ({"anyOf": {}}, "anyOf"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"$ref": "https://example.com/schema"}, r"\$ref"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, r"\$ref"),
        ({"$ref": "#/$defs/a~1b"}, r"\$ref"),
        ({"properties": {"a": {"$id": "x"}}}, r"\$id"),
        ({"$ref": "#/$defs/missing"}, "cannot be compiled"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "cannot be compiled"),
        ({"type": "string", "pattern": "(?=a)b"}, "cannot be compiled"),
        ({"enum": []}, "cannot be compiled"),
        (False, "cannot be compiled"),
        ({"$ref": "#"}, "without end"),
        ({"items": 3}, "must be an object"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(compiler: ConstraintCompiler, schema: Any, named: str) -> None:
    with pytest.raises(GrammarError, match=named) as refusal:
        compiler.compile(Grammar.json_schema(schema))
    assert refusal.value.code == "invalid_grammar"


@pytest.mark.parametrize("grammar", [Grammar.regex("(secret"), Grammar.lark('start: "secret'), Grammar.choice([])])
def test_mistakes_are_refused_without_a_quotation(compiler: ConstraintCompiler, grammar: Grammar) -> None:
    with pytest.raises(GrammarError) as refusal:
        compiler.compile(grammar)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "rules",
    [
        'start: a::0\na::_: "x" a::incr(_) %if lt(_, 1000000)\n  | ""',
        'start: %lark {\nstart: "a" start\n}',
        'start: "a"\nstart: "b"',
        "start: @other",
        '%llguidance {"no_forcing": true}\nstart: "a"',
        'start: "a" start',
    ],
)
def test_rules_that_nobody_has_judged_are_refused(compiler: ConstraintCompiler, rules: str) -> None:
    with pytest.raises(GrammarError, match=r"a grammar may have neither|cannot be left"):
        compiler.compile(Grammar.lark(rules))


@pytest.mark.parametrize("rules", ['start: "::" /@%if/', 'start: a\na: "(" a ")" | "x"', 'start: ("a" start)? "b"'])
def test_rules_that_only_look_like_those_are_taken(compiler: ConstraintCompiler, rules: str) -> None:
    compiler.compile(Grammar.lark(rules))


KEYWORDS = [
    "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "definitions", "enum",
    "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maximum", "minItems", "minLength",
    "minProperties", "minimum", "multipleOf", "oneOf", "pattern", "patternProperties", "prefixItems",
    "properties", "required", "type", "title", "unknown",
]  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["object", "array", "string", "integer", "#", "#/$defs/a", "a", "(", "^a{2}$", ""]),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", *KEYWORDS]), values, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYWORDS), VALUES, max_size=5))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_schema_does_more_than_be_refused(schema: dict[str, Any]) -> None:
    with contextlib.suppress(GrammarError):
        matcher = SHARED.compile(Grammar.json_schema(schema)).begin()
        assert allowed_ids(matcher)


PIECES = [*'ab_AB:|()[]*+?~{}"/.,1239 \n\\%', "start: ", "a: ", "%json {}"]


@given(st.lists(st.sampled_from(PIECES), max_size=20))
@settings(max_examples=200, deadline=None)
def test_no_rules_do_more_than_be_refused(pieces: list[str]) -> None:
    with contextlib.suppress(GrammarError):
        SHARED.compile(Grammar.lark("start: " + "".join(pieces))).begin()


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth - 1):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("at_the_limit", "one_past_it"),
    [
        (Grammar.regex("a" * 200), Grammar.regex("a" * 201)),
        (Grammar.json_schema(nested(4)), Grammar.json_schema(nested(5))),
        (Grammar.json_schema({"enum": list(range(7))}), Grammar.json_schema({"enum": list(range(8))})),
        (Grammar.choice([f"{n}" for n in range(8)]), Grammar.choice([f"{n}" for n in range(9)])),
        (
            Grammar.lark("start: " + "".join(f"r{n}\nr{n}: " for n in range(7)) + '"a"'),
            Grammar.lark("start: " + "".join(f"r{n}\nr{n}: " for n in range(8)) + '"a"'),
        ),
    ],
)
def test_limits_hold(at_the_limit: Grammar, one_past_it: Grammar) -> None:
    compiler = ConstraintCompiler(ByteTokenizer(), GrammarLimits(max_bytes=200, max_depth=4, max_rules=8))
    compiler.compile(at_the_limit)
    with pytest.raises(GrammarError):
        compiler.compile(one_past_it)
