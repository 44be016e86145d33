"""What a refused request is told: one line that names the field, the rule and, where there is one, the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import FakeServer

CHAT, COMPLETIONS, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
HI = [{"role": "user", "content": "hi"}]
FULL = {"messages": HI, "prompt": "hi", "input": "hi", "max_tokens": 1}


def content(value: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": value}]}


@pytest.mark.parametrize(
    ("route", "body", "text"),
    [
        (CHAT, {"messages": []}, "messages: should not be empty"),
        (CHAT, {"messages": ["hi"]}, "messages.0: should be an object"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages.0: needs content, as all but the assistant's"),
        (
            CHAT,
            {"messages": [{"role": "tool", "content": "2"}]},
            "messages.0: needs the tool_call_id of the call that it answers",
        ),
        (CHAT, content(5), "messages.0.content: should be a string or a list"),
        (CHAT, content([{"type": "image_url", "image_url": {}}]), "messages.0.content.0.type: should be 'text'"),
        (CHAT, {"stop": 5}, "stop: should be a string or a list"),
        (CHAT, {"n": 2}, "n: not supported: send a request for each answer"),
        (CHAT, {"stream": 1}, "stream: should be true or false"),
        (CHAT, {"logit_bias": []}, "logit_bias: should be an object"),
        (CHAT, {"response_format": "json"}, "response_format: should be an object"),
        (CHAT, {"functions": [{"name": "f"}]}, "functions: not supported: use tools"),
        (CHAT, {"audio": {}}, "audio: not supported"),
        (CHAT, {"tool_choice": "required"}, "tool_choice: asks for a call, and there are no tools"),
        (
            CHAT,
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools.0.function.name: should match ^[A-Za-z0-9_.-]{1,128}$",
        ),
        (CHAT, {"tools": [{"type": "custom", "custom": {}}]}, "tools.0.type: should be 'function'"),
        (COMPLETIONS, {"prompt": 5}, "prompt: should be a string or a list"),
        (COMPLETIONS, {"best_of": 2}, "best_of: not supported: send a request for each answer"),
        (COMPLETIONS, {"suffix": "x"}, "suffix: not supported: write what follows into the prompt"),
        (MESSAGES, {"system": 5}, "system: should be a string or a list"),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "s"}]}, "tools.0.type: should be 'custom'"),
        (MESSAGES, {"tool_choice": {"type": "any"}}, "tool_choice: asks for a call, and there are no tools"),
        (MESSAGES, {"tool_choice": {"type": "tool"}}, "tool_choice: name belongs to the type tool, and that needs it"),
        (MESSAGES, {"container": "x"}, "container: not supported"),
        (RESPONSES, {"input": []}, "input: should not be empty"),
        (RESPONSES, {"input": 5}, "input: should be a string or a list"),
        (RESPONSES, {"background": True}, "background: not supported: stream the response, or wait for it"),
        (RESPONSES, {"conversation": "c"}, "conversation: not supported: use previous_response_id"),
        (RESPONSES, {"prompt": {"id": "p"}}, "prompt: not supported: send its text as instructions and input"),
        (RESPONSES, {"max_tool_calls": 1}, "max_tool_calls: not supported: there are no built-in tools"),
    ],
)
def test_a_field_that_is_wrong_is_told_in_one_line(
    server: FakeServer, route: str, body: dict[str, Any], text: str
) -> None:
    asked = {name: value for name, value in FULL.items() if route != RESPONSES or name == "input"}
    response = server.post(route, asked | body)
    assert (response.status_code, response.json()["error"]["message"]) == (400, text)


def test_a_list_that_is_too_long_is_told_how_long_it_may_be(make_server: Any) -> None:
    server = make_server(num_sessions=1)
    response = server.post("/v1/sessions/init", {"type": "iot", "flash": list("abcdefghijklmnopqrstu")})
    assert response.json()["error"]["message"] == "flash: should have at most 20 items"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the request body is empty: send a JSON object"),
        (b" \n", "the request body is empty: send a JSON object"),
        (b"[]", "the request body must be a JSON object"),
        (b'{"a": 1,\n "b": }', "the request body is not valid JSON: line 2, column 7"),
        (b'{"a": NaN}', "the request body has NaN or Infinity in it, which are no JSON numbers"),
        (b'{"a": 1e999}', "a number in the request body is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number in the request body is too large"),
        (b'{"a": "\xff"}', "the request body is not valid UTF-8 text"),
        (b'{"a": "\\ud800"}', "a string in the request body has half of a surrogate pair"),
    ],
)
def test_a_body_that_cannot_be_read_is_told_why(server: FakeServer, body: bytes, text: str) -> None:
    response = server.request("POST", CHAT, content=body)
    assert (response.status_code, response.json()["error"]["message"]) == (400, text)


def test_a_compressed_body_is_refused_as_such(server: FakeServer) -> None:
    response = server.request("POST", CHAT, content=b"\x1f\x8b\x08", headers={"content-encoding": "gzip"})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "the request body is compressed: send it without Content-Encoding"
    plain = server.post(CHAT, {"messages": HI, "max_tokens": 1}, headers={"content-encoding": "identity"})
    assert plain.status_code == 200
