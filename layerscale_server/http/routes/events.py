"""``/v1/sessions/{session_id}/events`` and ``/ws``: what happens in a session, as it happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from fastapi import APIRouter, Depends, WebSocket
from starlette.responses import Response

from layerscale_core.errors import InvalidRequestError
from layerscale_core.sessions import PushAck, Session
from layerscale_server.errors import ClientGoneError
from layerscale_server.http.auth import require_same_origin
from layerscale_server.http.dependencies import NamedSession, Server
from layerscale_server.http.event_stream import HEARTBEAT, EventStreamResponse
from layerscale_server.http.schemas.sessions import PushRequest
from layerscale_server.http.session_socket import SessionSocket
from layerscale_server.http.stream_entries import push_entries
from layerscale_server.state import ServerState
from layerscale_server.subscriptions import Subscription

router = APIRouter()


@router.get("/v1/sessions/{session_id}/events")
async def events(session: NamedSession, server: Server) -> Response:
    """Server-sent events until the session is deleted, the client leaves, or the server stops."""
    limits = server.settings.limits
    subscription = await server.subscriptions.subscribe(session, limits.stream_events)
    return EventStreamResponse(subscription, _frames(subscription, limits.event_heartbeat_s))


async def _frames(subscription: Subscription, heartbeat_s: float) -> AsyncGenerator[bytes]:
    async for messages in subscription.batches(heartbeat_s):
        yield b"".join(message.sse for message in messages) or HEARTBEAT


@router.websocket("/v1/sessions/{session_id}/ws", dependencies=[Depends(require_same_origin)])
async def talk(socket: WebSocket, session: NamedSession, server: Server) -> None:
    """The same events as WebSocket messages, and entries the other way."""
    limits = server.settings.limits
    async with await server.subscriptions.subscribe(session, limits.stream_events) as subscription:
        try:
            await socket.accept()
        except OSError:  # so servers tell applications that nobody is there
            raise ClientGoneError from None
        await SessionSocket(socket, subscription, partial(_push, server, session), limits).run()


@router.get("/v1/sessions/{session_id}/ws")
async def talk_without_upgrade(_session: NamedSession) -> Response:
    """The same path without an upgrade, as behind a proxy that passes none on.

    Raises:
        InvalidRequestError: always.
    """
    raise InvalidRequestError(
        "this route is a WebSocket: open it as ws:// or wss://, and let proxies pass on Upgrade and Connection"
    )


async def _push(server: ServerState, session: Session, request: PushRequest) -> PushAck:
    """Enqueue entries from a WebSocket.

    Raises:
        RequestError: as for a push over HTTP.
    """
    return await push_entries(server.model_for_sessions().sessions, session, request.data)
