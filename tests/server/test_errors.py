"""Errors: the envelope, the status, the headers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from layerscale_core.errors import NoBurstSlotsError, StepError
from layerscale_server.http.strict_json import parse_object
from tests.server.conftest import FakeServer, Gate, MakeServer

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 2}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response, whose envelope and headers must be complete."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == response.headers["request-id"]
    (error,) = response.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    result: dict[str, Any] = error
    return result


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b'{"a":1}{',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"a":2}}',
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\n"}',
        b"{'a':1}",
        b'{"a":01}',
        b"[" * 100_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
    ],
)
def test_malformed_bodies_are_refused(server: FakeServer, body: bytes) -> None:
    error = error_of(server.request("POST", CHAT, content=body), 400)
    assert (error["type"], error["code"]) == ("invalid_request_error", None)


def test_unknown_route_and_wrong_method(server: FakeServer) -> None:
    assert error_of(server.get("/nope"), 404)["type"] == "not_found_error"
    assert error_of(server.get("/v1/models/"), 404)["type"] == "not_found_error"
    assert error_of(server.post("/v1/sessions", {}), 405)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [(CHAT, "POST"), ("/v1/models/x/y", "GET, HEAD"), ("/v1/responses/x", "DELETE, GET, HEAD")],
)
def test_wrong_method_is_told_the_right_ones(server: FakeServer, path: str, allowed: str) -> None:
    wrong = server.request("PUT", path)
    assert wrong.headers["allow"] == allowed
    assert error_of(wrong, 405)["message"] == f"this route takes only {allowed}"


def test_every_answer_has_an_id_of_its_own(server: FakeServer) -> None:
    responses = [server.get("/health"), server.get("/nope"), server.post(CHAT, HI), server.post(CHAT, {})]
    ids = [response.headers["x-request-id"] for response in responses]
    assert len(set(ids)) == len(ids)
    assert ids == [response.headers["request-id"] for response in responses]


@pytest.mark.parametrize("declared", [True, False])
def test_body_at_the_limit_passes_and_one_byte_more_does_not(make_server: MakeServer, declared: bool) -> None:
    server = make_server(body_bytes=2000)
    body = json.dumps(HI).encode()

    def send(size: int) -> httpx.Response:
        padded = body + b" " * (size - len(body))
        content: Any = padded if declared else _pieces(padded)
        return server.request("POST", CHAT, content=content)

    assert send(2000).status_code == 200
    error = error_of(send(2001), 413)
    assert (error["type"], error["code"]) == ("invalid_request_error", "request_too_large")


async def _pieces(body: bytes) -> Any:
    for start in range(0, len(body), 700):
        yield body[start : start + 700]


@pytest.mark.parametrize(
    ("limit", "make"),
    [
        ("json_depth", lambda n: b'{"a":' * n + b"1" + b"}" * n),
        ("json_keys", lambda n: json.dumps({str(i): 0 for i in range(n)}).encode()),
        ("json_containers", lambda n: b'{"a":[' + b",".join([b"[]"] * (n - 2)) + b"]}"),
        ("json_values", lambda n: b'{"a":[' + b",".join([b"0"] * n) + b"]}"),
    ],
)
def test_json_limits_hold_exactly(make_server: MakeServer, limit: str, make: Any) -> None:
    limits = make_server(**{limit: 64}).state.settings.limits
    parse_object(make(64), limits)
    with pytest.raises(Exception, match="64"):
        parse_object(make(65), limits)


def test_while_loading_only_health_and_models_are_there(make_server: MakeServer) -> None:
    server = make_server(has_model=False)
    for path in (CHAT, "/v1/completions", "/tokenize", "/detokenize"):
        error = error_of(server.post(path, {"prompt": "a", "tokens": [1]}), 503)
        assert (error["type"], error["code"]) == ("server_error", "model_loading")
    for path in ("/health", "/v1/health"):
        response = server.get(path)
        assert (response.status_code, response.content) == (503, b"")
    listed = server.get("/v1/models").json()
    assert listed["data"] == []
    assert listed["server"]["model"] is None
    assert listed["server"]["scheduler"] is None
    assert server.get("/metrics").status_code == 200


def test_what_the_pool_can_never_hold_is_a_503_of_its_own(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise NoBurstSlotsError("too little KV memory")

    monkeypatch.setattr(server.engine, "submit", refuse)
    error = error_of(server.post(CHAT, HI), 503)
    assert (error["type"], error["code"], error["param"]) == ("server_error", "no_burst_slots", "max_tokens")


def test_while_draining_new_work_is_refused(server: FakeServer) -> None:
    server.state.is_draining = True
    error = error_of(server.post(CHAT, HI), 503)
    assert (error["type"], error["code"]) == ("server_error", "shutting_down")
    assert server.get("/health").status_code == 503


def test_full_queue_says_when_to_come_back_before_it_looks_at_the_body(make_server: MakeServer) -> None:
    server = make_server(max_waiting=1)
    gate = Gate(server.executor)

    async def overload(client: httpx.AsyncClient) -> tuple[httpx.Response, list[httpx.Response]]:
        running = asyncio.create_task(client.post(CHAT, json=HI))
        await asyncio.to_thread(gate.wait_until_reached)
        waiting = asyncio.create_task(client.post(CHAT, json=HI))
        while server.engine.stats().num_waiting == 0:
            await asyncio.sleep(0.001)
        refused = await client.post(CHAT, content=b"not even JSON")
        gate.open()
        return refused, [await running, await waiting]

    refused, others = server.run(overload)
    error = error_of(refused, 429)
    assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert [response.status_code for response in others] == [200, 200]


def test_failed_step_is_a_500_with_an_id_and_the_next_request_is_fine(server: FakeServer) -> None:
    def fail(*_: object) -> None:
        raise StepError("secret detail")

    server.executor.before_step = fail
    response = server.post(CHAT, HI)
    error = error_of(response, 500)
    assert error["type"] == "server_error"
    assert "secret detail" not in error["message"]
    assert response.headers["x-request-id"] in error["message"]
    server.executor.before_step = lambda batch: None
    assert server.post(CHAT, HI).status_code == 200


def test_repeated_failures_make_the_server_unhealthy_until_a_step_succeeds(server: FakeServer) -> None:
    def fail(*_: object) -> None:
        raise StepError("broken")

    server.executor.before_step = fail
    for _ in range(3):
        assert server.post(CHAT, HI).status_code == 500
    assert server.get("/v1/health").status_code == 503
    server.executor.before_step = lambda batch: None
    assert server.post(CHAT, HI).status_code == 200
    assert server.get("/v1/health").status_code == 200


def test_health_means_forward_progress(make_server: MakeServer) -> None:
    server = make_server(stall_s=0.05)
    gate = Gate(server.executor)

    async def stall(client: httpx.AsyncClient) -> httpx.Response:
        assert (await client.get("/health")).status_code == 200
        stalled = asyncio.create_task(client.post(CHAT, json=HI))
        while (await client.get("/health")).status_code == 200:
            await asyncio.sleep(0.01)
        gate.open()
        return await stalled

    assert server.run(stall).status_code == 200
    assert server.get("/health").status_code == 200


def test_mistake_in_our_code_is_a_500_that_tells_nothing(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise RuntimeError("secret detail")

    assert server.state.model is not None
    monkeypatch.setattr(server.state.model.dialogue, "render", fail)
    response = server.post(CHAT, HI)
    assert error_of(response, 500)["message"] == f"internal error (request {response.headers['x-request-id']})"


def test_preflight_needs_nothing(make_server: MakeServer) -> None:
    server = make_server(has_model=False)
    response = server.request("OPTIONS", CHAT, headers={"origin": "http://x", "access-control-request-method": "POST"})
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == "*"
    assert "authorization" in response.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in response.headers
    assert "x-request-id" in server.get("/v1/models").headers["access-control-expose-headers"]
    assert response.headers["x-request-id"]


def test_content_type_and_odd_headers_and_queries_do_not_matter(server: FakeServer) -> None:
    headers = {"content-type": "text/plain", "anthropic-version": "x", "x-stainless-lang": "python"}
    assert server.post(CHAT + "?beta=true", HI, headers=headers).status_code == 200
    assert server.get("/v1/models?x=1", headers={"content-type": "application/json"}).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/metrics", "/v1/models", "/v1/models/acme/tiny"])
def test_head_is_answered_like_get(server: FakeServer, path: str) -> None:
    assert server.request("HEAD", path).status_code == server.get(path).status_code == 200
