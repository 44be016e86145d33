"""Agents that name their conversations in a header: a session each, whatever changes before the system prompt."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import FakeServer, MakeServer
from tests.support.session_api import ok

AGENT = {"x-claude-code-session-id": "0b0f2d3c-conversation"}
ROUTES = ["/v1/messages", "/v1/chat/completions"]


@pytest.fixture
def server(make_server: MakeServer) -> FakeServer:
    return make_server(adopts=True, num_sessions=2, context_len=1024)


def ask(
    server: FakeServer, said: list[str], *, route: str = ROUTES[0], headers: Any = AGENT, system: str = "Be brief."
) -> dict[str, Any]:
    """A turn of a conversation; user and assistant take turns."""
    messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(said)]
    body: dict[str, Any] = {"messages": messages, "max_tokens": 4, "temperature": 0}
    if route == ROUTES[0]:
        body["system"] = [{"type": "text", "text": text} for text in system.split("|")]
    else:
        body["messages"] = [{"role": "system", "content": system.replace("|", "")}, *messages]
    return ok(server.post(route, body, headers=headers))


def text_of(answer: dict[str, Any]) -> str:
    text: str = answer["content"][0]["text"] if "content" in answer else answer["choices"][0]["message"]["content"]
    return text


def num_computed(answer: dict[str, Any]) -> int:
    usage = answer["usage"]
    if "prompt_tokens" in usage:
        return int(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])
    return int(usage["input_tokens"] - usage.get("cache_read_input_tokens", 0))


def sessions_of(server: FakeServer) -> list[dict[str, Any]]:
    sessions: list[dict[str, Any]] = ok(server.get("/v1/sessions"))["sessions"]
    return sessions


@pytest.mark.parametrize("route", ROUTES)
def test_a_turn_costs_what_is_new_though_the_bookkeeping_line_changes(server: FakeServer, route: str) -> None:
    said = ["a rather long question, so that it counts"]
    for number in range(3):
        system = f"x-anthropic-billing-header: cc_version=2.1.{number}; cc_entrypoint=cli; cch=fa{number}9;|Be brief."
        answer = ask(server, said, route=route, system=system)
        if number:
            assert num_computed(answer) < 40
        said += [text_of(answer), "and?"]
    assert len(sessions_of(server)) == 1


def test_other_conversations_and_helpers_have_sessions_of_their_own(server: FakeServer) -> None:
    ask(server, ["hi"])
    ask(server, ["hi"], system="Name the topic.")
    assert len(sessions_of(server)) == 2
    ask(server, ["hi"], headers={"session-id": "another-conversation"})
    assert len(sessions_of(server)) == 2, "without room it is answered all the same"


@pytest.mark.parametrize("headers", [{}, {"session-id": "short"}, {"x-session-id": "x" * 300}])
def test_what_is_not_named_has_no_session(server: FakeServer, headers: dict[str, str]) -> None:
    ask(server, ["hi"], headers=headers)
    assert sessions_of(server) == []


def test_nothing_is_adopted_or_left_out_unless_asked_for(make_server: MakeServer) -> None:
    server = make_server(num_sessions=2, context_len=1024)
    line = "x-anthropic-billing-header: cc_version=2; cch=fa9;"
    with_line = ask(server, ["hi"], system=line + "|Be brief.")
    without = ask(server, ["hi"])
    assert sessions_of(server) == []
    assert with_line["usage"]["input_tokens"] == without["usage"]["input_tokens"] + len(line)


def test_a_chain_of_responses_moves_into_a_session(server: FakeServer) -> None:
    asked: dict[str, Any] = {"input": "a rather long question, so that it counts", "max_output_tokens": 4}
    computed = []
    for _ in range(4):
        response = ok(server.post("/v1/responses", asked))
        usage = response["usage"]
        computed.append(usage["input_tokens"] - usage["input_tokens_details"]["cached_tokens"])
        asked = {"input": "and?", "max_output_tokens": 4, "previous_response_id": response["id"]}
    assert len(sessions_of(server)) == 1
    assert max(computed[2:]) < 30


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=fa690;You are", "You are"),
        ("x-anthropic-billing-header: cc_version=2.1.37.0d9; cch=fa690;\n\nYou are", "You are"),
        ("x-anthropic-billing-header: is what this text is about", None),
        ("You are x-anthropic-billing-header: a=b;", None),
    ],
)
def test_only_the_bookkeeping_line_is_left_out(server: FakeServer, system: str, expected: str | None) -> None:
    answer, plain = ask(server, ["hi"], system=system), ask(server, ["hi"], system=expected or system, headers={})
    assert answer["usage"]["input_tokens"] == plain["usage"]["input_tokens"]
