"""One WebSocket of a session: what the client says, done in order, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from starlette.websockets import WebSocket, WebSocketDisconnect

from layerscale_core.errors import InvalidRequestError, RequestError
from layerscale_core.sessions import PushAck
from layerscale_server.event_messages import Message
from layerscale_server.http.dependencies import validated
from layerscale_server.http.errors import kind_of
from layerscale_server.http.prompts import off_loop
from layerscale_server.http.schemas.sessions import PushRequest
from layerscale_server.http.strict_json import parse_object
from layerscale_server.limits import Limits
from layerscale_server.logging import get_logger
from layerscale_server.subscriptions import End, Subscription

_INLINE_CHARACTERS = 1 << 14
"""Messages up to this size are parsed on the event loop: sooner done than handed over."""

_CLOSE_CODES = {End.LEFT: 1000, End.SESSION_DELETED: 1000, End.SHUTDOWN: 1001, End.TOO_SLOW: 1008}

logger = get_logger("layerscale.events")

Push = Callable[[PushRequest], Awaitable[PushAck]]
"""Checks entries, and enqueues them as its last act."""


class SessionSocket:
    """A conversation after the handshake.

    Events and replies wait in one queue, which one task writes: an acknowledgement is in it before the event loop can
    hear of any event that the push causes.
    """

    def __init__(self, socket: WebSocket, subscription: Subscription, push: Push, limits: Limits) -> None:
        self._socket = socket
        self._subscription = subscription
        self._push = push
        self._limits = limits

    async def run(self) -> None:
        """Talk until one of both has had enough."""
        reader = asyncio.create_task(self._read())
        try:
            with contextlib.suppress(WebSocketDisconnect):
                await self._write()
        finally:
            self._subscription.cancel()
            reader.cancel()

    async def _write(self) -> None:
        async for messages in self._subscription.batches():
            for message in messages:
                await self._socket.send_text(message.text)
        assert self._subscription.end is not None
        await self._socket.close(_CLOSE_CODES[self._subscription.end])

    async def _read(self) -> None:
        try:
            while (received := await self._socket.receive())["type"] != "websocket.disconnect":
                await self._answer(received.get("text"))
        finally:
            self._subscription.cancel()

    async def _answer(self, text: str | None) -> None:
        try:
            await self._obey(text)
        except RequestError as error:
            self._tell_error(str(error), error)
        except Exception as error:
            logger.exception("a message of a WebSocket failed unexpectedly")
            self._tell_error("internal error", error)

    async def _obey(self, text: str | None) -> None:
        if text is None:
            raise InvalidRequestError("messages are text frames with a JSON object each")
        is_short = len(text) <= _INLINE_CHARACTERS
        message = _parsed(text, self._limits) if is_short else await off_loop(_parsed, text, self._limits)
        if isinstance(message, PushRequest):
            ack = await self._push(message)
            self._tell("push_ack", pushed=ack.num_pushed, dropped=ack.num_dropped, queue_size=ack.queue_size)
        elif message == "ping":
            self._tell("pong")
        else:
            self._subscription.finish(End.LEFT)

    def _tell_error(self, message: str, error: Exception) -> None:
        self._tell("error", message=message, code=kind_of(error).status)

    def _tell(self, kind: str, **data: Any) -> None:
        self._subscription.put(Message(kind, data))


def _parsed(text: str, limits: Limits) -> PushRequest | Literal["ping", "close"]:
    """What a message asks for.

    Raises:
        InvalidRequestError: it is not one JSON object, read strictly, or asks for nothing we know.
    """
    message = parse_object(text.encode(), limits)
    match message.get("type"):
        case "push":
            return validated(message, PushRequest, limits)
        case "ping":
            return "ping"
        case "close":
            return "close"
        case _:
            raise InvalidRequestError("type: should be 'push', 'ping' or 'close'", param="type")
