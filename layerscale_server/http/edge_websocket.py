"""The edge of WebSockets: uvicorn's protocol with the limits, deadlines and manners that it has not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame
from websockets.http11 import Response
from websockets.server import ServerProtocol

from layerscale_server.http.answer_headers import answer_headers, new_request_id
from layerscale_server.http.errors import error_body
from layerscale_server.limits import Limits

_MAX_FRAGMENTS = 4096
"""Frames of one message: empty ones would otherwise cost memory that no limit on bytes counts."""


class _Handshake(ServerProtocol):
    """Refuses in our envelope, and never repeats what the client sent."""

    def reject(self, status: HTTPStatus | int, text: str) -> Response:  # noqa: ARG002 (it quotes the request)
        """The answer to an upgrade that cannot be."""
        kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        response = super().reject(status, json.dumps(error_body("this is not a valid WebSocket handshake", kind)))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        response.headers.update(answer_headers(new_request_id()))
        return response


class EdgeWebSocket(WebSocketsSansIOProtocol):
    """One connection, from the upgrade on. Event loop only.

    Compression is declined: a message is as large as what is sent for it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Handshake(extensions=[], max_size=limits.body_bytes, logger=self.logger)
        self._limits = limits
        self._read_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    # Reading

    def data_received(self, data: bytes) -> None:
        """Take input, the first of which is the whole head of the upgrade; the rest of a message is due soon."""
        super().data_received(data)
        if not self.handshake_initiated:  # the library takes fewer heads than our HTTP parser
            self.transport.write(self.conn.reject(HTTPStatus.BAD_REQUEST, "").serialize())
            self.transport.close()
        elif not self.frames and not self.conn.reader.buffer:
            self._disarm_read_deadline()
        elif self._read_deadline is None:
            self._read_deadline = self.loop.call_later(self._limits.body_deadline_s, self._on_slow_message)

    def handle_cont(self, event: Frame) -> None:
        """Take a fragment of a message."""
        if len(self.frames) >= _MAX_FRAGMENTS:
            self._fail(CloseCode.POLICY_VIOLATION, "too many fragments")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """A message is complete; text that is not UTF-8 ends the connection, without a trace in the log."""
        message = b"".join(self.frames)
        if self.curr_msg_data_type == "text" and not _is_utf8(message):
            self._fail(CloseCode.INVALID_DATA, "not UTF-8")
        else:
            self.frames = [message]
            super().send_receive_event_to_app()

    def _on_slow_message(self) -> None:
        self._fail(CloseCode.POLICY_VIOLATION, "the message did not arrive in time")

    def _disarm_read_deadline(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _fail(self, code: CloseCode, reason: str) -> None:
        self.frames = []
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Close after a breach of the protocol, also where there is no close frame to send yet."""
        if self.conn.close_sent is None:
            self.transport.close()
        else:
            super().handle_parser_exception()

    # Writing

    async def send(self, message: Any) -> None:
        """Pass a message on, unless the connection was closed meanwhile."""
        await self.writable.wait()
        if self.close_sent or self.transport.is_closing():
            self.handshake_complete = True  # or there will be none, which uvicorn would call our mistake
            raise ClientDisconnected
        await super().send(message)

    def handle_ping(self) -> None:
        """Answer a ping, unless the client does not read: nothing may pile up for it."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def pause_writing(self) -> None:
        """The client does not read: give it a while."""
        super().pause_writing()
        self._arm_write_deadline()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if not self.close_sent:
            self._disarm_write_deadline()

    def _arm_write_deadline(self) -> None:
        self._disarm_write_deadline()
        self._write_deadline = self.loop.call_later(self._limits.write_deadline_s, self.transport.abort)

    def _disarm_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    # The end

    def keepalive_timeout(self) -> None:
        """The client left a ping unanswered: it gets a close frame, and a while to take it."""
        super().keepalive_timeout()
        self._arm_write_deadline()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application is done: what is still to be written has to be read in time."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._arm_write_deadline()

    def shutdown(self) -> None:
        """Close, whatever the client has closed already."""
        with contextlib.suppress(InvalidState):
            super().shutdown()
        self.transport.close()
        self._arm_write_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._disarm_read_deadline()
        self._disarm_write_deadline()
        super().connection_lost(exc)
        self.read_paused = False  # there is nothing to resume


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True
