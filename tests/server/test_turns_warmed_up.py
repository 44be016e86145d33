"""``warm_up`` on every chat-shaped route: the prompt is computed ahead, and the turn that comes finds it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import FakeServer, MakeServer, chat_prompt, greedy_text
from tests.support.session_api import create, error, ok

LONG_ENOUGH = "what is to be said about all of this?"
CONVERSATION = {"messages": [{"role": "user", "content": LONG_ENOUGH}], "max_tokens": 5, "temperature": 0}
PROMPT = chat_prompt(("user", LONG_ENOUGH))
ROUTES = ["/v1/chat/completions", "/v1/messages"]


@pytest.fixture
def server(make_server: MakeServer) -> FakeServer:
    """A server with room for a session."""
    return make_server(num_sessions=1, context_len=1024)


def text_of(body: dict[str, Any]) -> str:
    """What was answered, on any of the routes."""
    text: str
    if "text" in body:
        text = body["text"]
    elif "content" in body:
        text = "".join(block["text"] for block in body["content"])
    else:
        text = body["choices"][0]["message"]["content"] or ""
    return text


def num_cached(body: dict[str, Any]) -> int:
    """Tokens of the prompt that had been computed before."""
    usage = body["usage"]
    cached: int = usage.get("cache_read_input_tokens", 0)
    if "prompt_tokens_details" in usage:
        cached = usage["prompt_tokens_details"]["cached_tokens"]
    return cached


@pytest.mark.parametrize("route", ROUTES)
def test_without_a_session_the_prefix_cache_has_what_was_warmed(server: FakeServer, route: str) -> None:
    warmed = ok(server.post(route, CONVERSATION | {"warm_up": True}))
    assert (text_of(warmed), num_cached(warmed)) == ("", 0)
    asked = ok(server.post(route, CONVERSATION))
    assert text_of(asked) == greedy_text(PROMPT, 5)
    assert num_cached(asked) == (len(PROMPT) - 1) // 16 * 16, "all whole pages"


@pytest.mark.parametrize("route", [*ROUTES, "generate"])
def test_in_a_session_all_but_the_last_token_is_there(server: FakeServer, route: str) -> None:
    path = create(server)
    body = CONVERSATION
    if route == "generate":
        route = f"{path}/generate"
    else:
        body = body | {"session_id": path.rsplit("/", 1)[1]}
    warmed = ok(server.post(route, body | {"warm_up": True}))
    assert (text_of(warmed), num_cached(warmed)) == ("", 1), "a session begins with BOS"
    assert ok(server.get(f"{path}/state"))["n_tokens"] == 1, "nothing is held of what is expected"
    asked = ok(server.post(route, body))
    assert text_of(asked) == greedy_text(PROMPT, 5)
    assert num_cached(asked) == len(PROMPT) - 1


def test_a_streamed_warm_up_ends_without_text(server: FakeServer) -> None:
    chunks = server.chunks(ROUTES[0], CONVERSATION | {"warm_up": True})
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"role": "assistant", "content": ""}, {}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_only_a_conversation_can_be_warmed_up(server: FakeServer) -> None:
    path = create(server, prompt="abc")
    refused = error(server.post(f"{path}/generate", {"prompt": "def", "warm_up": True}), 400)
    assert refused["param"] == "warm_up"
