"""Who may call which route."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, WebSocketRoute

from layerscale_core.specs import FREE_TIER, PRO_TIER
from layerscale_server.http.auth import require_key
from tests.server.conftest import PRO_KEY, FakeServer, MakeServer

OPEN_ROUTES = {"/health", "/v1/health", "/metrics"}


@pytest.fixture
def pro_server(make_server: MakeServer) -> FakeServer:
    return make_server(tier=PRO_TIER, license_key=PRO_KEY)


def leaves(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """The route table, routers within routers included; in newer FastAPI they stay whole, in older they are copied."""
    for route in routes:
        router = getattr(route, "original_router", None)
        if router is None:
            yield route
        else:
            yield from leaves(router.routes)


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of each route, hidden ones too; a WebSocket's method is WS. Nothing of another kind is there."""
    found: list[tuple[str, str]] = []
    for route in leaves(app.routes):
        assert isinstance(route, APIRoute | WebSocketRoute), f"nobody checks {route}"
        methods = ["WS"] if isinstance(route, WebSocketRoute) else sorted(route.methods)
        found += [(method, re.sub(r"\{.*?\}", "x", route.path)) for method in methods]
    return found


def status_of(server: FakeServer, method: str, path: str, headers: dict[str, str]) -> int:
    if method == "WS":
        return upgrade(server.app, path, headers)["status"]
    return server.request(method, path, headers=headers).status_code


def upgrade(app: FastAPI, path: str, headers: dict[str, str]) -> dict[str, Any]:
    """Ask for a WebSocket as a server does that can refuse in plain HTTP; status 101 = it was accepted."""
    answer: dict[str, Any] = {}

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.disconnect" if answer else "websocket.connect"}

    async def send(message: Any) -> None:
        if message["type"] == "websocket.accept":
            answer["status"] = 101
        elif message["type"] == "websocket.close":
            answer.setdefault("status", 403)
        else:
            answer.update({name: value for name, value in message.items() if name in {"status", "headers", "body"}})

    scope = {
        "type": "websocket",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "extensions": {"websocket.http.response": {}},
    }
    asyncio.run(app(scope, receive, send))
    return answer


def routes_that_need_no_key(server: FakeServer) -> set[str]:
    """Paths that answer somebody without a key, or with a wrong one, with anything but 401."""
    attempts: list[dict[str, str]] = [{}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}]
    return {
        path
        for method, path in every_route(server.app)
        if any(status_of(server, method, path, headers) != 401 for headers in attempts)
    }


def test_every_route_but_health_and_metrics_needs_the_key(pro_server: FakeServer) -> None:
    routes = every_route(pro_server.app)
    assert {path for _, path in routes} >= OPEN_ROUTES | {"/v1/models", "/v1/chat/completions", "/detokenize"}
    assert routes_that_need_no_key(pro_server) == OPEN_ROUTES
    for method, path in routes:
        assert status_of(pro_server, method, path, {"x-api-key": PRO_KEY}) != 401, (method, path)


def test_the_walk_finds_routes_that_somebody_forgot_to_guard(pro_server: FakeServer) -> None:
    forgotten = APIRouter()

    @forgotten.get("/forgotten", include_in_schema=False)
    def answer() -> None: ...

    @forgotten.websocket("/forgotten/ws")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()

    pro_server.app.include_router(forgotten)
    assert routes_that_need_no_key(pro_server) == OPEN_ROUTES | {"/forgotten", "/forgotten/ws"}


def test_a_websocket_is_refused_in_plain_http_before_the_handshake(pro_server: FakeServer) -> None:
    guarded = APIRouter(dependencies=[Depends(require_key)])

    @guarded.websocket("/ws")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()

    pro_server.app.include_router(guarded)
    refused = upgrade(pro_server.app, "/ws", {})
    assert refused["status"] == 401
    assert json.loads(refused["body"])["error"]["code"] == "invalid_api_key"
    assert b"x-request-id" in dict(refused["headers"])
    assert upgrade(pro_server.app, "/ws", {"authorization": f"Bearer {PRO_KEY}"})["status"] == 101
    assert upgrade(pro_server.app, "/unknown", {})["status"] == 404


def test_refusal_has_the_envelope_and_comes_before_the_body_is_read(pro_server: FakeServer) -> None:
    response = pro_server.request("POST", "/v1/chat/completions", content=b"not even JSON")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {PRO_KEY}"}, 200),
        ({"authorization": f"bearer  {PRO_KEY} "}, 200),
        ({"x-api-key": PRO_KEY}, 200),
        ({"x-api-key": PRO_KEY, "authorization": "Bearer wrong"}, 200),
        ({"x-api-key": "wrong", "authorization": f"Bearer {PRO_KEY}"}, 200),
        ({"authorization": f"Basic {PRO_KEY}"}, 401),
        ({"authorization": PRO_KEY}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": PRO_KEY[:-1]}, 401),
        ({"x-api-key": PRO_KEY + "x"}, 401),
        ({"x-api-key": "é".encode()}, 401),
        ({}, 401),
    ],
)
def test_the_key_as_bearer_or_header(pro_server: FakeServer, headers: dict[str, str], status: int) -> None:
    assert pro_server.get("/v1/models", headers=headers).status_code == status


def test_overlong_token_is_refused_unseen(make_server: MakeServer) -> None:
    key = "k" * 1025
    assert make_server(tier=PRO_TIER, license_key=key).get("/v1/models", headers={"x-api-key": key}).status_code == 401
    key = "k" * 1024
    assert make_server(tier=PRO_TIER, license_key=key).get("/v1/models", headers={"x-api-key": key}).status_code == 200


def test_free_tier_ignores_credentials(make_server: MakeServer) -> None:
    server = make_server(tier=FREE_TIER)
    for headers in ({}, {"authorization": "Bearer anything"}, {"x-api-key": "anything"}):
        assert server.get("/v1/models", headers=headers).status_code == 200


def test_key_shows_nowhere(pro_server: FakeServer, logs: io.StringIO) -> None:
    pro_server.get("/v1/models", headers={"authorization": f"Bearer {PRO_KEY}"})
    pro_server.get("/v1/models", headers={"authorization": f"Bearer {PRO_KEY}-not"})
    assert "/v1/models" in logs.getvalue()
    shown = logs.getvalue() + pro_server.get("/metrics").text + repr(pro_server.state)
    assert PRO_KEY not in shown
