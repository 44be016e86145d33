"""Models that reason: told apart on every route, switched off where the template can, and constraints hold after it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.conftest import FakeServer, MakeServer
from tests.support import tool_templates as templates
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.scripted_model import ScriptedModel

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "2+2?"}], "max_tokens": 500, "temperature": 0}
TOOL = {"name": "add", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}
TOOLS = [{"type": "function", "function": TOOL}]
THOUGHT = "<think>\nTwo and <tool_call> two.\n</think>\n\n"
SORTED = "Two and <tool_call> two."


class Thinker:
    """A server whose model says what a test wants."""

    def __init__(self, make_server: MakeServer, template: str, *control_tokens: str) -> None:
        tokenizer = ByteTokenizer(*control_tokens)
        self.server: FakeServer = make_server(template=template, tokenizer=tokenizer, context_len=4096, num_sessions=1)
        self.model = ScriptedModel(self.server.executor, tokenizer, self.server.is_quiet)

    def post(self, path: str, answer: str, **fields: Any) -> dict[str, Any]:
        self.model.say(answer)
        response = self.server.post(path, ASKED | fields)
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()
        return result

    def chat(self, answer: str, **fields: Any) -> dict[str, Any]:
        message: dict[str, Any] = self.post(CHAT, answer, **fields)["choices"][0]["message"]
        return message

    def events(self, path: str, answer: str, **fields: Any) -> list[dict[str, Any]]:
        self.model.say(answer)
        text = self.server.post(path, ASKED | {"stream": True} | fields).text
        return [json.loads(line.removeprefix("data: ")) for line in text.split("\n") if line.startswith("data: {")]


@pytest.fixture(params=[(), ("<think>", "</think>")], ids=["text", "tokens"])
def thinker(make_server: MakeServer, request: pytest.FixtureRequest) -> Thinker:
    return Thinker(make_server, templates.THINKING, *request.param)


def test_chat_has_it_beside_the_content(thinker: Thinker) -> None:
    expected = {"role": "assistant", "content": "It is 4.", "reasoning_content": SORTED}
    assert thinker.chat(THOUGHT + "It is 4.") == expected
    deltas = [chunk["choices"][0]["delta"] for chunk in thinker.events(CHAT, THOUGHT + "It is 4.")]
    parts = {name: "".join(delta.get(name, "") for delta in deltas) for name in ("reasoning_content", "content")}
    assert parts == {"reasoning_content": SORTED, "content": "It is 4."}
    assert thinker.chat("It is 4.") == {"role": "assistant", "content": "It is 4."}


def test_messages_have_it_only_if_asked(thinker: Thinker) -> None:
    text = {"type": "text", "text": "It is 4."}
    thinking = {"type": "thinking", "thinking": SORTED, "signature": ""}
    wanted = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    assert thinker.post(MESSAGES, THOUGHT + "It is 4.", **wanted)["content"] == [thinking, text]
    events = thinker.events(MESSAGES, THOUGHT + "It is 4.", **wanted)
    begun = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert begun == [{"type": "thinking", "thinking": "", "signature": ""}, {"type": "text", "text": ""}]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == SORTED
    assert "".join(delta.get("text", "") for delta in deltas) == "It is 4."
    assert thinker.post(MESSAGES, "It is 4.")["content"] == [text]  # the template was told not to


def test_messages_of_a_model_that_cannot_stop_reasoning_leave_it_out(make_server: MakeServer) -> None:
    always = Thinker(make_server, templates.ALWAYS_THINKING)
    answer = THOUGHT.removeprefix("<think>") + "It is 4."
    assert always.post(MESSAGES, answer)["content"] == [{"type": "text", "text": "It is 4."}]
    deltas = [event.get("delta", {}) for event in always.events(MESSAGES, answer)]
    assert "".join(delta.get("text", "") for delta in deltas) == "It is 4."
    assert always.chat(answer)["reasoning_content"] == SORTED


def test_a_session_has_it_in_the_whole_answer(thinker: Thinker) -> None:
    session_id = thinker.server.post("/v1/sessions/init", {"type": "event"}).json()["session_id"]
    path = f"/v1/sessions/{session_id}/generate"
    whole = thinker.post(path, THOUGHT + "It is 4.")
    assert (whole["text"], whole["reasoning_content"]) == ("It is 4.", SORTED)
    *frames, last = thinker.events(path, THOUGHT + "It is 4.")
    assert "".join(frame["token"] for frame in frames) == last["text"] == "It is 4."
    assert last["reasoning_content"] == SORTED


@pytest.mark.parametrize("fields", [{"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}])
def test_it_can_be_switched_off(thinker: Thinker, fields: dict[str, Any]) -> None:
    on, off = (thinker.post(CHAT, "It is 4.", **each)["usage"]["prompt_tokens"] for each in ({}, fields))
    assert off > on
    assert thinker.chat("<think>4", **fields)["content"] == "<think>4"  # what else it would be is over


def test_tools_are_called_after_it(thinker: Thinker) -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"x": 2}}\n</tool_call>'
    for choice in ("auto", "required"):
        message = thinker.chat(THOUGHT + call, tools=TOOLS, tool_choice=choice)
        assert (message["content"], message["reasoning_content"]) == (None, SORTED)
        assert message["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"x": 2}'}


def test_a_response_format_holds_after_it(thinker: Thinker) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    asked = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}
    message = thinker.chat(THOUGHT + '{"sum": 4}', **asked)
    assert (json.loads(message["content"]), message["reasoning_content"]) == ({"sum": 4}, SORTED)
    assert json.loads(thinker.chat('{"sum": 4}', **asked)["content"]) == {"sum": 4}


def test_earlier_reasoning_is_left_to_the_template(thinker: Thinker) -> None:
    message = {"role": "assistant", "content": "4", "reasoning_content": "hm"}
    messages = [*ASKED["messages"], message, *ASKED["messages"]]
    assert thinker.chat("4", messages=messages)["content"] == "4"


def test_tools_and_a_response_format_hold_after_it(thinker: Thinker) -> None:
    asked = {"tools": TOOLS, "response_format": {"type": "json_object"}}
    message = thinker.chat(THOUGHT + '{"sum": 4}', **asked)
    assert (message["content"], message["reasoning_content"]) == ('{"sum": 4}', SORTED)
    message = thinker.chat(THOUGHT + '<tool_call>\n{"name": "add", "arguments": {"x": 2}}\n</tool_call>', **asked)
    assert message["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"x": 2}'}
