"""Errors in Anthropic's envelope: everything at and below ``/v1/messages``, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from layerscale_core.errors import NoBurstSlotsError, QueueFullError, StepError
from layerscale_core.specs import PRO_TIER
from layerscale_server.http.anthropic_errors import is_anthropic_path
from layerscale_server.state import ServerState
from tests.server.conftest import PRO_KEY, FakeServer, FakeTemplate, MakeServer

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


def error_of(response: httpx.Response, status: int) -> tuple[str, str]:
    """Type and message of an error, whose envelope must be complete."""
    assert response.status_code == status, response.text
    body = response.json()
    assert (set(body), body["type"]) == ({"type", "error", "request_id"}, "error")
    assert set(body["error"]) == {"type", "message"}
    assert body["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
    return body["error"]["type"], body["error"]["message"]


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/v1/messages", True),
        ("/v1/messages?beta=true", True),
        ("/v1/messages/", True),
        ("/v1/messages/count_tokens?beta=true", True),
        ("/v1/messagesx", False),
        ("/v1", False),
        ("/v1/models?x=/v1/messages", False),
        ("", False),
    ],
)
def test_the_paths_that_are_answered_so(path: str, is_one: bool) -> None:
    assert is_anthropic_path(path) is is_one


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
def test_bad_requests(server: FakeServer, path: str) -> None:
    kind, message = error_of(server.post(path, HI | {"messages": 1}), 400)
    assert (kind, message.split(":")[0]) == ("invalid_request_error", "messages")
    kind, message = error_of(server.request("POST", path, content=b"{"), 400)
    assert (kind, message) == ("invalid_request_error", "the request body is not valid JSON: line 1, column 2")


def test_no_key(make_server: MakeServer) -> None:
    server = make_server(tier=PRO_TIER, license_key=PRO_KEY)
    for path in (MESSAGES, COUNT):
        assert error_of(server.post(path, HI), 401)[0] == "authentication_error"
    assert server.post(MESSAGES, HI, headers={"x-api-key": PRO_KEY}).status_code == 200


def test_expired_licence(make_server: MakeServer) -> None:
    server = make_server(tier=PRO_TIER, license_key=PRO_KEY, expires_at=1.0)
    assert error_of(server.post(MESSAGES, HI, headers={"x-api-key": PRO_KEY}), 403)[0] == "permission_error"


def test_unknown_routes_and_sessions(server: FakeServer) -> None:
    for path in (f"{MESSAGES}/", f"{MESSAGES}/batches", f"{COUNT}/x"):
        assert error_of(server.post(path, HI), 404)[0] == "not_found_error"
    assert error_of(server.post(MESSAGES, HI | {"session_id": "sess_000000000000"}), 404)[0] == "not_found_error"
    assert set(server.post("/v1/messagesx", HI).json()) == {"error"}


def test_wrong_method(server: FakeServer) -> None:
    response = server.get(f"{MESSAGES}?beta=true")
    assert error_of(response, 405)[0] == "invalid_request_error"
    assert response.headers["allow"] == "POST"


def test_body_too_large(make_server: MakeServer) -> None:
    server = make_server(body_bytes=2000)
    assert error_of(server.post(MESSAGES, HI | {"x": "x" * 2000}), 413)[0] == "request_too_large"


def test_full_queue(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise QueueFullError("too much is waiting", 3)

    monkeypatch.setattr(server.engine, "check_accepting", refuse)
    response = server.request("POST", MESSAGES, content=b"not even JSON")
    assert error_of(response, 429) == ("rate_limit_error", "too much is waiting")
    assert response.headers["retry-after"] == "3"


def test_not_available(make_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = make_server(has_model=False)
    for path in (MESSAGES, COUNT):
        assert error_of(loading.post(path, HI), 503)[0] == "overloaded_error"
    server = make_server()

    def refuse(*_: object) -> None:
        raise NoBurstSlotsError("too little KV memory")

    monkeypatch.setattr(server.engine, "submit", refuse)
    assert error_of(server.post(MESSAGES, HI), 503)[0] == "overloaded_error"
    server.state.is_draining = True
    assert error_of(server.post(MESSAGES, HI), 503)[0] == "overloaded_error"


def test_faults_of_ours_tell_nothing(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StepError("secret detail")

    server.executor.before_step = fail
    kind, message = error_of(server.post(MESSAGES, HI), 500)
    assert (kind, "secret" in message) == ("api_error", False)

    def mistake(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(FakeTemplate, "render", mistake)
    kind, message = error_of(server.post(MESSAGES, HI), 500)
    assert (kind, "secret" in message) == ("api_error", False)


def test_the_edge_refuses_in_it_too(make_server: MakeServer, run_live: Callable[[ServerState], str]) -> None:
    address = run_live(make_server(head_bytes=2048).state)
    for path, names in ((f"{MESSAGES}?beta=true", {"type", "error", "request_id"}), ("/v1/models", {"error"})):
        response = httpx.post(address + path, headers={"x-long": "x" * 3000}, json=HI)
        assert response.status_code == 431
        body = json.loads(response.content)
        assert set(body) == names
        assert body["error"]["type"] == "invalid_request_error"
