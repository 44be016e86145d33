"""Subscribers on real connections, and what they are told."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

BAR = {"o": 10.0, "h": 12.5, "l": 9.75, "c": 11.0, "v": 1200.0}
TIMEOUT_S = 30.0


def socket_url(address: str, session_id: str) -> str:
    return f"{address.replace('http', 'ws', 1)}/v1/sessions/{session_id}/ws"


class Listener:
    """A stream of server-sent events, read frame by frame."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._frames = self._split()

    def _split(self) -> Iterator[bytes]:
        rest = b""
        for piece in self.response.iter_raw():
            *frames, rest = (rest + piece).split(b"\n\n")
            yield from frames
        assert not rest

    def frame(self) -> bytes:
        """The next frame without its empty line."""
        return next(self._frames)

    def event(self) -> dict[str, Any]:
        """The next event, heartbeats aside."""
        while (frame := self.frame()) == b": heartbeat":
            pass
        name, data = frame.decode().split("\n")
        event: dict[str, Any] = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        return event

    def rest(self) -> list[bytes]:
        """All frames up to the end of the stream."""
        return list(self._frames)


@contextlib.contextmanager
def listening(address: str, session_id: str, **options: Any) -> Iterator[Listener]:
    """Subscribe to a session's events."""
    with httpx.stream("GET", f"{address}/v1/sessions/{session_id}/events", timeout=TIMEOUT_S, **options) as response:
        assert response.status_code == 200, response.read()
        yield Listener(response)


class Talker:
    """A WebSocket of a session, one JSON object a message."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, message: Any) -> None:
        """Send a JSON object, or text or bytes as they are."""
        self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def push(self, *entries: dict[str, Any]) -> None:
        self.send({"type": "push", "data": list(entries)})

    def receive(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(self.connection.recv(TIMEOUT_S))
        assert set(message) == {"type", "data"}
        return message

    def receive_type(self, kind: str) -> dict[str, Any]:
        """The data of the next message, which is of this type."""
        message = self.receive()
        assert message["type"] == kind, message
        data: dict[str, Any] = message["data"]
        return data


@contextlib.contextmanager
def talking(address: str, session_id: str, **options: Any) -> Iterator[Talker]:
    """Open a WebSocket; the first message, ``connected``, is read already."""
    with connect(socket_url(address, session_id), max_size=None, max_queue=None, **options) as connection:
        talker = Talker(connection)
        assert talker.receive_type("connected")["session_id"] == session_id
        yield talker
