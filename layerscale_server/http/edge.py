"""The edge: uvicorn's HTTP protocol with the limits and deadlines that it has not.

A client may send a head of bounded size, and must send head and body in time and take its answer in time. Other servers
put a proxy in front for that; here a slow or huge client costs one connection and nothing else.
"""

from __future__ import annotations

import asyncio
import enum
import json
import re
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from layerscale_server.http.answer_headers import answer_headers, new_request_id
from layerscale_server.http.anthropic_errors import is_anthropic_path, translated
from layerscale_server.http.errors import error_body
from layerscale_server.limits import Limits
from layerscale_server.logging import get_logger

_FEED_BYTES = 4096
"""Bytes given to the parser at a time, which holds back an unfinished header line of any length."""

_LINGER_S = 1.0
"""How long a refused client may go on sending."""

logger = get_logger("layerscale.http")

_HTTP2_OFFER = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n)", re.IGNORECASE)


class _Reading(enum.Enum):
    """What the next bytes of a connection belong to; IDLE: no request has begun."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()


class _RefusedHeadError(Exception):
    """Leaves the parser's callback; the parser then reports the request as invalid."""


class EdgeProtocol(HttpToolsProtocol):
    """One connection. Event loop only."""

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
        self._limits = limits
        self._reading = _Reading.IDLE
        self._head_bytes = 0
        self._is_refused = False
        self._read_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._refusal = (HTTPStatus.BAD_REQUEST, "this is not a valid HTTP request")

    # Reading

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._arm_read_deadline()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, never much more than it may hold back."""
        if self._is_refused:
            return
        for start in range(0, len(data), _FEED_BYTES):
            piece = data[start : start + _FEED_BYTES]
            super().data_received(piece if self._reading is _Reading.BODY else _without_http2_offer(piece))
            if self._is_refused or self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            if self._reading is _Reading.HEAD:
                self._head_bytes += len(piece)
                if self._head_bytes > self._limits.head_bytes + _FEED_BYTES:
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too large")
                    return

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._reading = _Reading.HEAD
        self._head_bytes = 0
        if not self._is_answering():
            self._arm_read_deadline()

    def on_headers_complete(self) -> None:
        """A head is there: check its size, then let uvicorn start the application and expect the body."""
        self._reading = _Reading.BODY
        head_bytes = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        if head_bytes > self._limits.head_bytes or len(self.headers) > self._limits.head_fields:
            self._refusal = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too large")
            raise _RefusedHeadError
        if not self._is_answering():
            self._arm_read_deadline()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A body is complete."""
        self._reading = _Reading.IDLE
        self._disarm_read_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is complete; the rest of a request that came too early is due from now on."""
        super().on_response_complete()
        if self._reading is not _Reading.IDLE and not self.pipeline:
            self._arm_read_deadline()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, unless answers are still due on it."""
        if self._is_answering():
            self._refuse(HTTPStatus.BAD_REQUEST, "an upgrade has to wait for the answers before it")
        else:
            self._disarm_read_deadline()
            super().handle_websocket_upgrade()

    def _is_answering(self) -> bool:
        """Whether an earlier request of this connection is at work, during which little is read of the next one."""
        return self.cycle is not None and not self.cycle.response_complete

    def _arm_read_deadline(self) -> None:
        """Expect the rest of a head or body in time; not while an earlier request keeps it waiting."""
        self._disarm_read_deadline()
        is_body = self._reading is _Reading.BODY
        seconds = self._limits.body_deadline_s if is_body else self._limits.header_deadline_s
        self._read_deadline = self.loop.call_later(seconds, self._on_slow_request)

    def _disarm_read_deadline(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _on_slow_request(self) -> None:
        """Give up on a request; where nobody waits for an answer, without a word."""
        has_answer = self._reading is _Reading.BODY and self.cycle.response_started
        if self._reading is _Reading.IDLE or has_answer:
            self.transport.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")

    # Refusing

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's text for what ``_refusal`` says better)
        """Refuse what the parser could not read, or what was refused inside it."""
        self._refuse(*self._refusal)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer with an error and close; in the middle of an answer only close."""
        if self._is_answering():
            if self.cycle.response_started:
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(self._refusal_of(status, message))
        self._linger()

    def _refusal_of(self, status: HTTPStatus, message: str) -> bytes:
        """An error as a whole answer."""
        request_id = new_request_id()
        logger.info("a request was refused", status=status.value, reason=message, request_id=request_id)
        error = error_body(message, "invalid_request_error")
        if is_anthropic_path((self.url or b"").decode("latin-1")):
            error = translated(error, status, request_id)
        body = json.dumps(error).encode()
        about_body = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        fields = answer_headers(request_id) | about_body
        head = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*head, "", ""]).encode() + body

    def _linger(self) -> None:
        """Close for writing now and for reading soon: if closed at once, unread input could erase the answer."""
        self._is_refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    # Writing

    def pause_writing(self) -> None:
        """The client does not read: give it a while."""
        super().pause_writing()
        self._write_deadline = self.loop.call_later(self._limits.write_deadline_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._disarm_write_deadline()

    def _disarm_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._disarm_read_deadline()
        self._disarm_write_deadline()
        super().connection_lost(exc)


def _without_http2_offer(piece: bytes) -> bytes:
    """A head without the offer to go on in HTTP/2, which Java's client makes by default.

    The parser would end the request at its head, and take the body for the other protocol.
    """
    head, separator, rest = piece.partition(b"\r\n\r\n")
    return _HTTP2_OFFER.sub(b"", head + separator, count=1) + rest
