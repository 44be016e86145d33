"""Tools and a response format in one request: the answer is a call, or it matches; on every route."""

from __future__ import annotations

import json
from typing import Any

import pytest

from layerscale_core.dialogue import WrittenCall
from layerscale_core.dialogue.call_syntax import JSON, SYNTAXES, CallSyntax
from tests.server.conftest import MakeServer
from tests.server.test_tool_formats import (
    ANTHROPIC_TOOLS,
    CALLS,
    CHAT,
    MESSAGES,
    OPENAI_TOOLS,
    QUESTION,
    SCHEMA,
    Spoken,
    chat_message,
    expected_calls,
    without_ids,
)
from tests.support import tool_templates as templates

ANSWER_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "says": {"type": "string"}},
    "required": ["name", "says"],
    "additionalProperties": False,
}
FORMAT: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": ANSWER_SCHEMA}}
ASKED = {"messages": QUESTION, "tools": OPENAI_TOOLS, "response_format": FORMAT}
MATCHING = '{"name": "get_weather", "says": "<tool_ [TOOL_ <|tool"}'
PLACES = [(syntax, has_tokens) for syntax in SYNTAXES for has_tokens in (False, True)]

by_syntax = pytest.mark.parametrize(
    ("syntax", "has_tokens"), PLACES, ids=[f"{s.name}{'-tokens' * t}" for s, t in PLACES]
)


@pytest.fixture
def spoken(make_server: MakeServer, syntax: CallSyntax, has_tokens: bool) -> Spoken:
    return Spoken(make_server, syntax, templates.SYNTAX_NAMES[syntax.name], has_tokens)


@pytest.fixture
def untaught(make_server: MakeServer) -> Spoken:
    return Spoken(make_server, JSON, templates.UNAWARE, has_tokens=False)


@by_syntax
def test_in_chat_it_is_either(spoken: Spoken, syntax: CallSyntax) -> None:
    calls = CALLS[:1] if syntax.separator is None else CALLS
    for place in ({}, {"session_id": spoken.session_id}):
        [choice] = spoken.post(CHAT, ASKED | place, syntax.write(calls))["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
        assert without_ids(choice["message"]["tool_calls"]) == expected_calls(calls)
        [choice] = spoken.post(CHAT, ASKED | place, MATCHING)["choices"]
        assert (choice["message"], choice["finish_reason"]) == ({"role": "assistant", "content": MATCHING}, "stop")
        message, reason = chat_message(spoken.stream(CHAT, ASKED | place, MATCHING))
        assert (message, reason) == ({"content": MATCHING}, "stop")
        message, reason = chat_message(spoken.stream(CHAT, ASKED | place, syntax.write(calls)))
        assert (message["content"], reason) == (None, "tool_calls")


@by_syntax
def test_in_messages_too(spoken: Spoken, syntax: CallSyntax) -> None:
    body = {
        "messages": QUESTION,
        "tools": ANTHROPIC_TOOLS,
        "output_config": {"format": {"type": "json_schema", "schema": ANSWER_SCHEMA}},
    }
    [block] = spoken.post(MESSAGES, body, MATCHING)["content"]
    assert block == {"type": "text", "text": MATCHING}
    [block] = spoken.post(MESSAGES, body, syntax.write(CALLS[:1]))["content"]
    assert (block["name"], block["input"]) == (CALLS[0].name, CALLS[0].arguments)


@by_syntax
def test_a_model_that_wants_something_else_is_held_to_one_of_them(spoken: Spoken, syntax: CallSyntax) -> None:
    for wish in ("It rains.", syntax.write([WrittenCall("get_wether", {})])):
        message = spoken.post(CHAT, ASKED | {"max_tokens": 80}, wish)["choices"][0]["message"]
        for name, _ in without_ids(message.get("tool_calls", [])):
            assert name in ("get_weather", "get_news")
        assert "tool_calls" in message or message["content"].startswith('{"name": "')


@pytest.mark.parametrize("choice", ["required", "none"])
def test_where_there_is_no_choice_it_is_the_one_or_the_other(untaught: Spoken, choice: str) -> None:
    for wish in (MATCHING, JSON.write(CALLS[:1])):
        answer = untaught.post(CHAT, ASKED | {"tool_choice": choice, "max_tokens": 120}, wish)["choices"][0]["message"]
        assert ("tool_calls" in answer) == (choice == "required")
        if choice == "none":
            assert answer["content"].startswith('{"name": "')


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"guided_json": {"properties": {"name": {}, "parameters": SCHEMA}}}, "guided_json"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"guided_choice": ["a", "b"]}, "guided_choice"),
    ],
)
def test_what_could_be_taken_for_a_call_or_is_no_schema_is_refused(
    untaught: Spoken, fields: dict[str, Any], param: str
) -> None:
    asked: dict[str, Any] = {"messages": QUESTION, "tools": OPENAI_TOOLS, "max_tokens": 9}
    response = untaught.server.post(CHAT, asked | fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert untaught.server.post(CHAT, asked | fields | {"tool_choice": "none"}).status_code == 200


def test_any_object_goes_where_calls_are_not_bare_json(make_server: MakeServer) -> None:
    spoken = Spoken(make_server, SYNTAXES[0], templates.HERMES, has_tokens=False)
    text = json.dumps({"name": "get_weather", "parameters": {"city": "Oslo"}})
    asked = {"messages": QUESTION, "tools": OPENAI_TOOLS, "response_format": {"type": "json_object"}}
    assert spoken.post(CHAT, asked, text)["choices"][0]["message"]["content"] == text
