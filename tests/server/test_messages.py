"""``POST /v1/messages``: shapes, meanings, refusals."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.server.conftest import MODEL_ID, FakeServer, MakeServer, chat_prompt, greedy_text, hermes_call

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 5}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "2"}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def message_of(server: FakeServer, **fields: Any) -> dict[str, Any]:
    response = server.post(MESSAGES, HI | fields)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def error_of(server: FakeServer, **fields: Any) -> str:
    """The message of a 400."""
    response = server.post(MESSAGES, HI | fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"
    return str(response.json()["error"]["message"])


def test_answers_in_anthropics_shape(server: FakeServer) -> None:
    prompt = chat_prompt(("user", "hi"))
    body = message_of(server)
    assert re.fullmatch(r"msg_[0-9a-f]{24}", body.pop("id"))
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": MODEL_ID,
        "content": [{"type": "text", "text": greedy_text(prompt, 5)}],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {"input_tokens": len(prompt), "output_tokens": 5},
    }


def test_a_prompt_asked_again_counts_whole_and_says_what_was_cached(server: FakeServer) -> None:
    first = message_of(server)["usage"]
    assert message_of(server)["usage"] == first | {"cache_read_input_tokens": 16}


def test_end_of_sequence_ends_the_turn(make_server: MakeServer) -> None:
    body = message_of(make_server(alphabet=(257, 65)), max_tokens=50)
    assert (body["stop_reason"], body["stop_sequence"]) == ("end_turn", None)


def test_the_stop_sequence_that_was_met_is_reported_and_left_out(server: FakeServer) -> None:
    whole = greedy_text(chat_prompt(("user", "hi")), 20)
    stop = whole[3:5]
    body = message_of(server, max_tokens=20, stop_sequences=["\x00 never", stop])
    assert body["content"] == [{"type": "text", "text": whole[: whole.index(stop)]}]
    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", stop)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [("user", "hi")]),
        ({"messages": [user(said("h"), said("i"))]}, [("user", "hi")]),
        ({"system": "be brief"}, [("system", "be brief"), ("user", "hi")]),
        (
            {"system": [said("be ") | {"cache_control": {"type": "ephemeral"}}, said("brief")]},
            [("system", "be brief"), ("user", "hi")],
        ),
        ({"system": ""}, [("user", "hi")]),
        ({"messages": [user()]}, [("user", "")]),
        ({"messages": [user(said("a")), user(said("b"))]}, [("user", "a\n\nb")]),
        (
            {
                "messages": [
                    user(said("hi")),
                    assistant(
                        {"type": "thinking", "thinking": "hm", "signature": "s"},
                        {"type": "redacted_thinking", "data": "d"},
                        said("yo"),
                    ),
                    user(said("so?")),
                ]
            },
            [("user", "hi"), ("assistant", "yo"), ("user", "so?")],
        ),
        (
            {"messages": [user(said("hi")), assistant(said("I call"), CALL), user(RESULT, said("go on"))]},
            [("user", "hi"), ("assistant", "I call" + hermes_call("f", {"x": 1})), ("tool", "2"), ("user", "go on")],
        ),
        (
            {"messages": [assistant(CALL), assistant(CALL | {"id": "toolu_2"}), user(RESULT), user(said("go on"))]},
            [("assistant", "\n".join([hermes_call("f", {"x": 1})] * 2)), ("tool", "2"), ("user", "go on")],
        ),
        (
            {"messages": [assistant(CALL), user(RESULT | {"content": [said("no"), said("pe")], "is_error": True})]},
            [("assistant", hermes_call("f", {"x": 1})), ("tool", "Error: nope")],
        ),
    ],
)
def test_conversations_become_what_the_template_expects(
    server: FakeServer, fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    prompt = chat_prompt(*expected)
    body = message_of(server, **fields)
    assert body["content"][0]["text"] == greedy_text(prompt, 5)
    counted = server.post(COUNT, {"messages": HI["messages"]} | fields)
    assert (counted.status_code, counted.json()) == (200, {"input_tokens": len(prompt)})
    assert body["usage"]["input_tokens"] == len(prompt)


def test_an_answer_that_was_begun_goes_on_in_the_middle(server: FakeServer) -> None:
    begun = [*HI["messages"], {"role": "assistant", "content": "Well, "}]
    prompt = [*chat_prompt(("user", "hi")), *b"Well, "]
    body = message_of(server, messages=begun)
    assert body["content"][0]["text"] == greedy_text(prompt, 5)
    assert body["usage"]["input_tokens"] == len(prompt)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "messages:"),
        ([{"role": "system", "content": "hi"}], "messages.0.role:"),
        ([{"role": "user"}], "messages.0.content:"),
        ([{"role": "user", "content": 1}], "messages.0.content:"),
        ([user({"type": "image", "source": {}})], "messages.0.content.0: should be a block of one of the types text,"),
        ([user({"text": "no type"})], "messages.0.content.0: should be a block of one of the types text,"),
        ([user({"type": ["text"]})], "messages.0.content.0: should be a block of one of the types text,"),
        ([user({"type": "text", "text": 1})], "messages.0.content.0.text:"),
        ([user(CALL)], "messages.0: tool_use is the assistant's"),
        ([assistant(RESULT)], "messages.0: tool_use is the assistant's"),
        ([assistant(CALL | {"input": "{}"}), user(RESULT)], "messages.0.content.0.input:"),
        ([assistant(CALL), user(RESULT | {"content": [{"type": "image"}]})], "messages.1.content.0.content.0.type:"),
        ([user(RESULT)], "messages: a tool_result's tool_use_id is the id of no tool_use before it"),
        ([user(said("hi")), assistant(CALL)], "messages: the conversation ends with a tool_use"),
        ([user(said("refuse me"))], "the chat template refuses this conversation"),
    ],
)
def test_refuses_conversations_and_says_where(server: FakeServer, messages: list[Any], reason: str) -> None:
    assert error_of(server, messages=messages).startswith(reason)


def test_what_a_client_sent_is_not_repeated(server: FakeServer) -> None:
    assert "secret" not in error_of(server, messages=[user({"type": "secret", "text": "secret"})])


def test_max_tokens_is_needed(server: FakeServer) -> None:
    assert error_of(server, max_tokens=None) == "max_tokens: Field required"
    assert error_of(server, max_tokens=0).startswith("max_tokens:")
    assert server.post(COUNT, {"messages": HI["messages"]}).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "web_search_20250305", "name": "web_search"}]),
        ("tools", [{"name": "f", "input_schema": {"type": "array"}}]),
        ("tools", [{"name": "f", "input_schema": {}}] * 2),
        ("tool_choice", {"type": "tool"}),
        ("thinking", {"type": "often"}),
        ("tool_choice", {"type": "any"}),
        ("tool_choice", {"type": "tool", "name": "f"}),
        ("tool_choice", "auto"),
        ("output_config", {"format": {"type": "json_schema"}}),
        ("output_format", {"type": "text"}),
        ("mcp_servers", [{"type": "url", "url": "http://x", "name": "x"}]),
        ("container", "container_1"),
        ("compaction", {}),
        ("compaction", {"type": "enabled"}),
        ("context_management", {"edits": [{"type": "clear_tool_uses_20250919"}]}),
        ("stop_sequences", "one"),
        ("stop_sequences", [""]),
        ("temperature", 3),
        ("n", 2),
    ],
)
def test_refuses_what_it_cannot_do_and_names_it(server: FakeServer, field: str, value: object) -> None:
    assert error_of(server, **{field: value}).startswith(field)
    if field not in {"stop_sequences", "temperature", "n"}:
        response = server.post(COUNT, {"messages": HI["messages"], field: value})
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith(field)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"tool_choice": {"type": "none"}, "mcp_servers": [], "output_format": None},
        {"model": "any", "metadata": {"user_id": "u"}, "service_tier": "auto", "inference_geo": "eu", "speed": "fast"},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "output_config": {"effort": "high"}},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"cache_control": {"type": "ephemeral"}, "top_k": 40, "top_p": 0.9},
    ],
)
def test_takes_what_changes_nothing(server: FakeServer, fields: dict[str, Any]) -> None:
    body = message_of(server, **fields)
    assert body["content"][0]["text"] == greedy_text(chat_prompt(("user", "hi")), 5)


def test_top_k_takes_effect(server: FakeServer) -> None:
    body = message_of(server, temperature=2, top_k=1)
    assert body["content"][0]["text"] == greedy_text(chat_prompt(("user", "hi")), 5)


def test_a_turn_in_a_session_costs_what_is_new(make_server: MakeServer) -> None:
    server = make_server(num_sessions=1)
    session_id = server.post("/v1/sessions/init", {"type": "event"}).json()["session_id"]
    first = message_of(server, session_id=session_id)
    answer = first["content"][0]["text"]
    again = [*HI["messages"], {"role": "assistant", "content": answer}, {"role": "user", "content": "so?"}]
    body = message_of(server, messages=again, session_id=session_id)
    prompt = chat_prompt(("user", "hi"), ("assistant", answer), ("user", "so?"))
    assert body["content"][0]["text"] == greedy_text(prompt, 5)
    held = len(chat_prompt(("user", "hi"))) + first["usage"]["output_tokens"]
    assert body["usage"] == {"input_tokens": len(prompt), "output_tokens": 5, "cache_read_input_tokens": held}


def test_prompt_at_the_context_fits_and_one_more_does_not(server: FakeServer) -> None:
    room = 255 - len(chat_prompt(("user", "")))
    body = message_of(server, messages=[user(said("x" * room))])
    assert (body["usage"]["output_tokens"], body["stop_reason"]) == (1, "max_tokens")
    longer = [user(said("x" * (room + 1)))]
    assert error_of(server, messages=longer).startswith("prompt is too long: 256 tokens > 255 maximum")
    assert server.post(COUNT, {"messages": longer}).json() == {"input_tokens": 256}


def test_number_of_messages_is_limited(make_server: MakeServer) -> None:
    server = make_server(messages=2)
    assert message_of(server, messages=[user(said("a"))] * 2)
    assert error_of(server, messages=[user(said("a"))] * 3) == "messages: should hold at most 2 messages"


def test_model_without_template_cannot(make_server: MakeServer) -> None:
    assert "no chat template" in error_of(make_server(has_template=False))
