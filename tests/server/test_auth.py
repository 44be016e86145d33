"""Who may call which route."""

from __future__ import annotations

import io
import re

import pytest

from layerscale_core.specs import FREE_TIER
from tests.server.conftest import PRO_KEY, PRO_TIER, FakeServer, MakeServer

OPEN_ROUTES = {"/health", "/v1/health", "/metrics"}


@pytest.fixture
def pro_server(make_server: MakeServer) -> FakeServer:
    return make_server(tier=PRO_TIER, license_key=PRO_KEY)


def every_route(server: FakeServer) -> list[tuple[str, str]]:
    paths = server.app.openapi()["paths"]
    return [(method.upper(), re.sub(r"\{.*?\}", "x", path)) for path, methods in paths.items() for method in methods]


def test_every_route_but_health_and_metrics_needs_the_key(pro_server: FakeServer) -> None:
    routes = every_route(pro_server)
    assert {path for _, path in routes} >= OPEN_ROUTES | {"/v1/models", "/v1/chat/completions", "/detokenize"}
    for method, path in routes:
        response = pro_server.request(method, path)
        assert (response.status_code == 401) == (path not in OPEN_ROUTES), (method, path, response.text)
        with_key = pro_server.request(method, path, headers={"x-api-key": PRO_KEY})
        assert with_key.status_code != 401, (method, path)


def test_refusal_has_the_envelope_and_comes_before_the_body_is_read(pro_server: FakeServer) -> None:
    response = pro_server.request("POST", "/v1/chat/completions", content=b"not even JSON")
    assert response.status_code == 401
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
