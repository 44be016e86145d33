"""Every error's way to the client: one table from exceptions to status, type and code, and OpenAI's envelope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from layerscale_core.errors import (
    ConflictError,
    InvalidRequestError,
    MaxSessionsError,
    NoBurstSlotsError,
    NotFoundError,
    NumericalError,
    QueueFullError,
    RequestError,
    SavedStateError,
    ShuttingDownError,
    StateNotReadError,
    StateNotSavedError,
)
from layerscale_server.errors import (
    AuthenticationError,
    ForeignOriginError,
    LicenseExpiredError,
    ModelLoadingError,
    RequestTooLargeError,
)
from layerscale_server.http.anthropic_errors import is_anthropic_path, translated


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """What a client sees of an error; ``code`` None = the exception's own, if it has one."""

    status: int
    type: str
    code: str | None = None


_KINDS: dict[type[Exception], ErrorKind] = {
    RequestTooLargeError: ErrorKind(413, "invalid_request_error"),
    InvalidRequestError: ErrorKind(400, "invalid_request_error"),
    AuthenticationError: ErrorKind(401, "authentication_error", "invalid_api_key"),
    ForeignOriginError: ErrorKind(403, "permission_error", "foreign_origin"),
    LicenseExpiredError: ErrorKind(403, "permission_error", "license_expired"),
    NotFoundError: ErrorKind(404, "not_found_error"),
    ConflictError: ErrorKind(409, "conflict_error"),
    SavedStateError: ErrorKind(409, "conflict_error"),
    QueueFullError: ErrorKind(429, "rate_limit_error", "queue_full"),
    ModelLoadingError: ErrorKind(503, "server_error", "model_loading"),
    ShuttingDownError: ErrorKind(503, "server_error", "shutting_down"),
    NoBurstSlotsError: ErrorKind(503, "server_error"),
    MaxSessionsError: ErrorKind(503, "server_error"),
    StateNotSavedError: ErrorKind(500, "server_error"),
    StateNotReadError: ErrorKind(500, "server_error"),
    NumericalError: ErrorKind(500, "server_error", "numerical_error"),
    Exception: ErrorKind(500, "server_error"),
}

_HTTP_TYPES = {404: "not_found_error", 405: "invalid_request_error"}


def kind_of(error: Exception) -> ErrorKind:
    """The row of the nearest class in the table."""
    return next(_KINDS[each] for each in type(error).__mro__ if each in _KINDS)


def envelope(error: Exception, request_id: str) -> dict[str, Any]:
    """The JSON body that tells a client of an error; one that was not meant to happen shows only the request id."""
    kind = kind_of(error)
    message = str(error) if isinstance(error, RequestError) else "internal error"
    if kind.status == 500:
        message = f"{message} (request {request_id})"
    code = kind.code or getattr(error, "code", None)
    return error_body(message, kind.type, param=getattr(error, "param", None), code=code)


def error_body(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The envelope of ``http-api`` section 4.1."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic_envelope(error: Exception, request_id: str) -> dict[str, Any]:
    """The JSON body that tells one of Anthropic's clients."""
    return translated(envelope(error, request_id), kind_of(error).status, request_id)


def error_response(error: Exception, request_id: str, path: str) -> Response:
    """The whole answer to a request that ends with an error; ``path`` is where it was sent."""
    body = (anthropic_envelope if is_anthropic_path(path) else envelope)(error, request_id)
    return JSONResponse(body, kind_of(error).status, _headers_of(error))


def _headers_of(error: Exception) -> dict[str, str]:
    """What a client may do about it."""
    if isinstance(error, QueueFullError):
        return {"retry-after": str(error.retry_after_s)}
    return {"www-authenticate": "Bearer"} if isinstance(error, AuthenticationError) else {}


def install_error_handlers(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Answer with the envelope whatever a route raises, and where there is no route.

    To a WebSocket's upgrade the answer is a plain HTTP one, too.

    Args:
        routes: all of the application's.
    """

    async def on_request_error(connection: HTTPConnection, error: Exception) -> Response:
        return error_response(error, connection.state.request_id, connection.scope["path"])

    async def on_http_error(connection: HTTPConnection, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = _HTTP_TYPES.get(error.status_code, "invalid_request_error")
        message, headers = error.detail, error.headers
        if error.status_code == HTTPStatus.NOT_FOUND:
            message = "no such route"
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(_methods_at(routes, connection.scope))
            message, headers = f"this route takes only {allowed}", {"allow": allowed}
        body = error_body(message, kind)
        if is_anthropic_path(connection.scope["path"]):
            body = translated(body, error.status_code, connection.state.request_id)
        return JSONResponse(body, error.status_code, headers)

    async def no_such_route(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise HTTPException(404)  # Starlette's own would refuse an upgrade as forbidden

    app.router.default = no_such_route
    app.add_exception_handler(RequestError, on_request_error)
    app.add_exception_handler(HTTPException, on_http_error)


def _methods_at(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """The methods that a request's path takes; Starlette names those of the first route with this path."""
    found = {
        method
        for route in routes
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
    return sorted(found | {"HEAD"} if "GET" in found else found)
