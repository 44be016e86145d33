"""Short cuts to the session routes of a server without a model."""

from __future__ import annotations

import time
from typing import Any, Protocol

import httpx

READING = {"sid": "a", "val": 1.5, "lo": 0, "hi": 2}
LINE = "a 1.5 within 0 to 2\n"
"""``READING`` as the model reads it."""

TIMEOUT_S = 30.0


class Asks(Protocol):
    """What the helpers need of a server."""

    def get(self, path: str, **options: Any) -> httpx.Response: ...

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response: ...


def ok(response: httpx.Response) -> dict[str, Any]:
    """The body of an answer with status 200."""
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer with this status."""
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()["error"]
    return body


def create(server: Asks, **body: Any) -> str:
    """The path of a new session."""
    session_id = ok(server.post("/v1/sessions/init", {"type": "iot"} | body))["session_id"]
    return f"/v1/sessions/{session_id}"


def settle(server: Asks, path: str) -> dict[str, Any]:
    """Wait as the official client does until all that was pushed is processed; returns the status."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        status = ok(server.get(f"{path}/stream/status"))
        processed, enqueued = (status["statistics"][name] for name in ("items_processed", "total_enqueued"))
        if status["streaming"]["queue_size"] == 0 and processed == enqueued:
            return status
        time.sleep(0.005)
    raise AssertionError("the stream does not settle")


def push(server: Asks, path: str, *entries: dict[str, Any]) -> dict[str, Any]:
    """Push entries and wait until they are processed; returns the acknowledgement."""
    ack = ok(server.post(f"{path}/stream/push", {"data": list(entries)}))
    settle(server, path)
    return ack


def answered(server: Asks, path: str) -> list[dict[str, Any]]:
    """Wait until every flash query's answer is of the current version; returns the list."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        listed = ok(server.get(f"{path}/flash"))
        queries: list[dict[str, Any]] = listed["flash_queries"]
        if all(query["data_version"] == listed["current_data_version"] for query in queries):
            return queries
        time.sleep(0.005)
    raise AssertionError("the flash queries are not answered")
