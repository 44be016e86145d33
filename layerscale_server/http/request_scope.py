"""What surrounds every request: its id, its log line, its metrics, and an answer even when the code is wrong."""

from __future__ import annotations

import contextlib
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerscale_server.errors import ClientGoneError
from layerscale_server.http.answer_headers import answer_headers, new_request_id
from layerscale_server.http.errors import error_response
from layerscale_server.logging import bound_fields, get_logger, name_session
from layerscale_server.metrics import Metrics

_SWITCHING_PROTOCOLS = 101

_CLIENT_GONE = 499
"""Logged and counted where the client left before an answer; never sent (nginx's number for it)."""

_PREFLIGHT_HEADERS = [
    (b"access-control-allow-methods", b"GET, POST, DELETE, HEAD, OPTIONS"),
    (b"access-control-allow-headers", b"*, authorization"),
    (b"access-control-max-age", b"86400"),
]

_POLLED_ROUTES = {"/health", "/v1/health", "/metrics"}
"""Asked every few seconds by machines: logged only for debugging."""

logger = get_logger("layerscale.http")


class RequestScope:
    """The outermost middleware, in plain ASGI: it adds nothing to a stream but two headers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        method = scope.get("method", "GET")  # that of every upgrade to a WebSocket
        exchange = _Exchange(send, is_head=method == "HEAD")
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        with bound_fields(request_id=exchange.request_id):
            # To HEAD the answer is GET's without its body.
            inner = {**scope, "method": "GET"} if method == "HEAD" else scope
            if method == "OPTIONS":
                await exchange.answer_preflight()
            else:
                await self._answer(inner, receive, exchange)
            self._record(method, inner, exchange)

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        try:
            await self._app(scope, receive, exchange.send)
        except ClientGoneError:
            exchange.status = _CLIENT_GONE
        except Exception as error:
            logger.exception("a request failed unexpectedly")
            if exchange.status is None:
                await error_response(error, exchange.request_id, scope["path"])(scope, receive, exchange.send)
            elif exchange.status == _SWITCHING_PROTOCOLS:
                await exchange.close_socket()

    def _record(self, method: str, scope: Scope, exchange: _Exchange) -> None:
        status = exchange.status or _CLIENT_GONE
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.count_request(method, route, status)
        duration_ms = round(1000 * (time.monotonic() - exchange.started), 1)
        client = scope.get("client")
        if session_id := scope.get("path_params", {}).get("session_id"):
            name_session(session_id)
        logger.log(
            logging.DEBUG if route in _POLLED_ROUTES else logging.INFO,
            "request",
            method=method,
            path=scope["path"],
            status=status,
            duration_ms=duration_ms,
            client=client[0] if client else None,
        )


class _Exchange:
    """One request's id and answer.

    Args:
        is_head: the answer ends with its head, also that of a stream that would never end by itself.
    """

    def __init__(self, send: Send, *, is_head: bool) -> None:
        self.request_id = new_request_id()
        self.status: int | None = None
        self.started = time.monotonic()
        self._send = send
        self._is_head = is_head

    async def send(self, message: Message) -> None:
        """Pass a message on; the head of the answer gets the headers that every answer has."""
        if self._is_head and message["type"] == "http.response.body":
            return
        if message["type"] in {"http.response.start", "websocket.http.response.start", "websocket.accept"}:
            self.status = message.get("status", _SWITCHING_PROTOCOLS)
            ours = [(name.encode(), value.encode()) for name, value in answer_headers(self.request_id).items()]
            message["headers"] = [*message.get("headers", ()), *ours]
        await self._send(message)
        if self._is_head and message["type"] == "http.response.start":
            await self._send({"type": "http.response.body"})  # for the application the client has now left

    async def close_socket(self) -> None:
        """End a WebSocket after an unexpected error."""
        with contextlib.suppress(OSError):  # it is closed already
            await self.send({"type": "websocket.close", "code": 1011})

    async def answer_preflight(self) -> None:
        """Let a browser's page call the API. No credentials: a page must know the key to use it."""
        await self.send({"type": "http.response.start", "status": 204, "headers": _PREFLIGHT_HEADERS})
        await self.send({"type": "http.response.body", "body": b""})
