"""What routes ask for: the server, its model, and a validated body.

All are coroutines although few wait: FastAPI runs plain functions on other threads, and a hop there and back takes
longer than most of what a request does outside the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, HTTPConnection

from layerscale_core.errors import InvalidRequestError
from layerscale_core.sessions import SavedSessions, Session
from layerscale_server.errors import ClientGoneError, RequestTooLargeError
from layerscale_server.http.field_errors import invalid_request
from layerscale_server.http.strict_json import parse_object
from layerscale_server.limits import Limits
from layerscale_server.state import LoadedModel, ServerState

_INLINE_BYTES = 1 << 16
"""Bodies up to this size are parsed on the event loop: sooner done than handed over."""

Body = TypeVar("Body", bound=BaseModel)


async def get_server(connection: HTTPConnection) -> ServerState:
    """The server that the application was made for."""
    server = connection.app.state.server
    assert isinstance(server, ServerState)
    return server


Server = Annotated[ServerState, Depends(get_server)]


async def get_model(server: Server) -> LoadedModel:
    """The loaded model, whether or not it takes new work.

    Raises:
        ModelLoadingError: there is none yet.
    """
    return server.loaded_model()


async def get_accepting_model(server: Server) -> LoadedModel:
    """The loaded model, if it takes new work; asked before a body is read.

    Raises:
        ModelLoadingError, LicenseExpiredError, ShuttingDownError: it does not.
        QueueFullError: its queue is full.
    """
    return server.model_for_new_work()


async def get_accepting_sessions(server: Server) -> LoadedModel:
    """The loaded model, if its sessions take new work; asked before a body is read.

    Raises:
        ModelLoadingError, LicenseExpiredError, ShuttingDownError: they do not.
    """
    return server.model_for_sessions()


Model = Annotated[LoadedModel, Depends(get_model)]
AcceptingModel = Annotated[LoadedModel, Depends(get_accepting_model)]
AcceptingSessions = Annotated[LoadedModel, Depends(get_accepting_sessions)]


async def get_session(session_id: str, model: Model) -> Session:
    """The session that the path names, to look at.

    Raises:
        ModelLoadingError: there is none yet.
        NotFoundError: there is none with this id.
    """
    return model.sessions.get(session_id)


async def get_accepting_session(session_id: str, model: AcceptingSessions) -> Session:
    """The session that the path names, if it takes new work; asked before a body is read.

    Raises:
        ModelLoadingError, LicenseExpiredError, ShuttingDownError: it does not.
        NotFoundError: there is none with this id.
    """
    return model.sessions.get(session_id)


async def get_saved_sessions(model: AcceptingSessions) -> SavedSessions:
    """The sessions on disk.

    Raises:
        ModelLoadingError, LicenseExpiredError, ShuttingDownError: no new work is taken.
        InvalidRequestError: the server keeps none.
    """
    if model.saved is None:
        raise InvalidRequestError(
            "this server keeps no sessions on disk: start it with --state-dir DIR", code="no_state_dir"
        )
    return model.saved


Saved = Annotated[SavedSessions, Depends(get_saved_sessions)]
NamedSession = Annotated[Session, Depends(get_session)]
AcceptingSession = Annotated[Session, Depends(get_accepting_session)]


def json_body(schema: type[Body]) -> Callable[[Request, Server], Awaitable[Body]]:
    """A dependency that reads, parses and validates the body."""

    async def read(request: Request, server: Server) -> Body:
        limits = server.settings.limits
        body = await _read_body(request, limits.body_bytes)
        if len(body) <= _INLINE_BYTES:
            return _parse(body, schema, limits)
        return await asyncio.to_thread(_parse, body, schema, limits)

    return read


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """The body, as long as it stays within the limit.

    Raises:
        InvalidRequestError: it is compressed.
        RequestTooLargeError: it does not; known before the body is read where the client says its size.
        ClientGoneError: the client left before its end.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequestError("the request body is compressed: send it without Content-Encoding")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise RequestTooLargeError(max_bytes)
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > max_bytes:
                raise RequestTooLargeError(max_bytes)
    except ClientDisconnect:
        raise ClientGoneError from None
    return bytes(body)


def _parse(body: bytes, schema: type[Body], limits: Limits) -> Body:
    return validated(parse_object(body, limits), schema, limits)


def validated(raw: Mapping[str, Any], schema: type[Body], limits: Limits) -> Body:
    """A parsed body as its schema has it.

    Raises:
        InvalidRequestError: it breaks a rule of the schema.
    """
    try:
        return schema.model_validate(raw, context=limits)
    except ValidationError as error:
        raise invalid_request(error, schema) from None
