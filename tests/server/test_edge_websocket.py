"""Limits, deadlines and manners of WebSockets, byte by byte on real sockets."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.frames import OP_BINARY, OP_CLOSE, OP_CONT, OP_PING, OP_PONG, OP_TEXT, Close, Frame
from websockets.sync.client import connect

from layerscale_core.sessions import FlashReady, NewSession, Session
from layerscale_server.http.process import make_uvicorn
from layerscale_server.serve import bind
from layerscale_server.state import ServerState
from tests.server.conftest import FakeServer, Gate, MakeServer
from tests.support.live_sessions import BAR, TIMEOUT_S, socket_url, talking

RunLive = Callable[[ServerState], str]
PING = b'{"type":"ping"}'


class RawSocket:
    """A WebSocket client without manners."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._received = bytearray()

    def send(self, opcode: int, data: bytes = b"", *, fin: bool = True) -> None:
        self.connection.sendall(Frame(opcode, data, fin).serialize(mask=True))  # type: ignore[arg-type]  # an Opcode

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame, which is not masked."""
        first, length = self._read(2)
        if length == 126:
            length = int.from_bytes(self._read(2), "big")
        elif length == 127:
            length = int.from_bytes(self._read(8), "big")
        assert first & 0x80
        return first & 0x0F, self._read(length)

    def close_code(self) -> int:
        """The code of the close frame that comes next but for events; the connection ends after it."""
        while (frame := self.frame())[0] != OP_CLOSE:
            pass
        assert not self.rest()
        return Close.parse(frame[1]).code

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.connection.recv(1 << 16):
                self._received += piece
        return bytes(self._received)

    def _read(self, number: int) -> bytes:
        while len(self._received) < number:
            piece = self.connection.recv(1 << 16)
            assert piece, "the connection has ended"
            self._received += piece
        taken = bytes(self._received[:number])
        del self._received[:number]
        return taken


def upgrade(path: str, method: str = "GET", extra: str = "", key: str = base64.b64encode(bytes(16)).decode()) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        f"sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n{extra}\r\n"
    ).encode()


@contextlib.contextmanager
def connected(address: str, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as client:
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(TIMEOUT_S)
        client.connect((host, int(port)))
        yield client


@contextlib.contextmanager
def raw_socket(address: str, session: Session, receive_buffer: int | None = None) -> Iterator[RawSocket]:
    """After the handshake and ``connected``."""
    with connected(address, receive_buffer) as client:
        client.sendall(upgrade(f"/v1/sessions/{session.session_id}/ws"))
        raw = RawSocket(client)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += raw._read(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-extensions" not in head.lower()
        assert json.loads(raw.frame()[1])["type"] == "connected"
        yield raw


@contextlib.contextmanager
def served(state: ServerState) -> Iterator[tuple[str, set[Any]]]:
    """The address of a server and its connections; leaving shuts it down."""
    uvicorn_server = make_uvicorn(state)
    with bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", uvicorn_server.server_state.connections
        finally:
            uvicorn_server.should_exit = True
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "the HTTP server did not end"


def send_until_cut_off(raw: RawSocket) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            raw.send(OP_PING)
            time.sleep(0.01)


def answer_to(address: str, request: bytes) -> tuple[int, bytes]:
    """Status and whole answer of a request after which the server closes."""
    with connected(address) as client:
        client.sendall(request)
        answer = RawSocket(client).rest()
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12]), answer


@pytest.fixture
def server(make_server: MakeServer) -> FakeServer:
    return make_server(num_sessions=1, context_len=4096, write_deadline_s=0.3, body_deadline_s=0.3, body_bytes=4096)


@pytest.fixture
def session(server: FakeServer) -> Session:
    return server.sessions.create(NewSession("ohlcv")).result(30)


@pytest.fixture
def address(server: FakeServer, run_live: RunLive) -> str:
    return run_live(server.state)


@pytest.mark.parametrize(
    "request_bytes",
    [
        upgrade("/ws", key="c2VjcmV0"),
        upgrade("/ws", key="no base64"),
        upgrade("/ws").replace(b"version: 13", b"version: 12"),
        upgrade("/ws", "POST", "content-length: 2\r\n") + b"{}",
        upgrade("/ws", extra=f"x: {'y' * 9000}\r\n"),
    ],
    ids=["short key", "bad key", "old version", "POST", "long line"],
)
def test_a_handshake_that_is_none_is_refused_in_our_envelope(address: str, request_bytes: bytes) -> None:
    status, answer = answer_to(address, request_bytes)
    assert status == 400
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["type"] == "invalid_request_error"
    assert b"secret" not in answer
    assert b"c2VjcmV0" not in answer
    assert b"request-id: req_" in answer


def test_a_head_beyond_the_limit_is_refused_for_upgrades_too(address: str) -> None:
    fields = "".join(f"x-{number}: y\r\n" for number in range(64))
    assert answer_to(address, upgrade("/ws", extra=fields))[0] == 431


def test_an_upgrade_does_not_overtake_an_answer(server: FakeServer, address: str, session: Session) -> None:
    gate = Gate(server.executor)
    body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
    first = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with connected(address) as client:
        client.sendall(first)
        gate.wait_until_reached()
        client.sendall(upgrade(f"/v1/sessions/{session.session_id}/ws"))
        answer = RawSocket(client).rest()
    gate.open()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"101 Switching" not in answer


def test_a_message_at_the_limit_passes_and_one_byte_more_does_not(address: str, session: Session) -> None:
    with raw_socket(address, session) as raw:
        raw.send(OP_TEXT, PING + b" " * (4096 - len(PING)))
        assert json.loads(raw.frame()[1])["type"] == "pong"
        raw.send(OP_TEXT, PING + b" " * (4097 - len(PING)))
        assert raw.close_code() == 1009
    with raw_socket(address, session) as raw:
        raw.send(OP_TEXT, b" " * 4000, fin=False)
        raw.send(OP_CONT, b" " * 97)
        assert raw.close_code() == 1009


def test_fragments_make_one_message(address: str, session: Session) -> None:
    with raw_socket(address, session) as raw:
        raw.send(OP_TEXT, PING[:5], fin=False)
        raw.send(OP_PING, b"still there?")
        raw.send(OP_CONT, PING[5:])
        assert raw.frame() == (OP_PONG, b"still there?")
        assert json.loads(raw.frame()[1])["type"] == "pong"


def test_a_message_of_endless_empty_fragments_ends_the_connection(address: str, session: Session) -> None:
    with raw_socket(address, session) as raw:
        raw.send(OP_TEXT, fin=False)
        raw.connection.sendall(Frame(OP_CONT, b"", fin=False).serialize(mask=True) * 5000)
        assert raw.close_code() == 1008


@pytest.mark.parametrize("sent", [b"\x81", Frame(OP_TEXT, PING, fin=False).serialize(mask=True)], ids=["head", "frame"])
def test_half_a_message_has_to_be_completed_in_time(address: str, session: Session, sent: bytes) -> None:
    with raw_socket(address, session) as raw:
        time.sleep(0.5)  # a silent client is no slow one
        raw.connection.sendall(sent)
        assert raw.close_code() == 1008


def test_a_breach_of_the_protocol_ends_one_connection_and_is_no_news(
    address: str, session: Session, logs: io.StringIO
) -> None:
    breaches = {
        Frame(OP_TEXT, b"\xff\xfe").serialize(mask=True) * 2: 1007,
        Frame(OP_CONT, b"x").serialize(mask=True): 1002,
        Frame(OP_TEXT, b"not masked").serialize(mask=False): 1002,
        b"\xff" * 100: 1002,
        Frame(OP_CLOSE, b"\x00").serialize(mask=True): 1002,
        b"\xc1\x80" + bytes(4): 1002,  # a reserved bit, as for compression
    }
    with talking(address, session.session_id) as other:
        for sent, code in breaches.items():
            with raw_socket(address, session) as raw:
                raw.connection.sendall(sent)
                assert raw.close_code() == code
        other.send({"type": "ping"})
        assert other.receive_type("pong") == {}
    assert '"level": "error"' not in logs.getvalue()


FRAMES = st.builds(
    lambda first, data, is_masked, cut: (
        bytes([first, len(data) | is_masked << 7]) + bytes(4 * is_masked) + data[: len(data) - cut]
    ),
    st.integers(0, 255),
    st.binary(max_size=125),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0, 0, 0, 1]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(FRAMES | st.binary(max_size=20), min_size=1, max_size=6))
def test_random_frames_hurt_nobody(address: str, session: Session, logs: io.StringIO, pieces: list[bytes]) -> None:
    with talking(address, session.session_id) as other:
        with raw_socket(address, session) as raw, contextlib.suppress(ConnectionError):
            for piece in pieces:
                raw.connection.sendall(piece)
        other.send({"type": "ping"})
        assert other.receive_type("pong") == {}
    assert '"level": "error"' not in logs.getvalue()


def test_frames_before_the_handshake_is_over_are_refused(
    server: FakeServer, address: str, session: Session, logs: io.StringIO
) -> None:
    gate = Gate(server.executor)
    server.sessions.push(session, [BAR])
    gate.wait_until_reached()  # nobody can subscribe now
    for early in (Frame(OP_CONT, b"x").serialize(mask=True), b"\xff" * 50):
        with connected(address) as client:
            client.sendall(upgrade(f"/v1/sessions/{session.session_id}/ws"))
            time.sleep(0.1)
            client.sendall(early)
            assert RawSocket(client).rest() == b""
    gate.open()
    while len(server.state.subscriptions):
        time.sleep(0.01)
    assert '"level": "error"' not in logs.getvalue()


def test_who_leaves_in_the_middle_is_forgotten(server: FakeServer, address: str, session: Session) -> None:
    for sent in (b"", Frame(OP_TEXT, PING).serialize(mask=True) * 100, Frame(OP_CLOSE, b"").serialize(mask=True)):
        with raw_socket(address, session) as raw:
            raw.connection.sendall(sent)
            raw.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    while len(server.state.subscriptions):
        time.sleep(0.01)


def test_a_client_who_does_not_read_is_cut_off(server: FakeServer, address: str, session: Session) -> None:
    with raw_socket(address, session, receive_buffer=4096) as slow, talking(address, session.session_id) as quick:
        for version in range(100):
            large = FlashReady(1, "Up?", "yes" * 20_000, version, 0.0, 0)
            session.post(lambda large=large: session.subscribers.tell(large)).result(30)  # type: ignore[misc]
            assert quick.receive_type("flash_ready")["data_version"] == version
        while len(server.state.subscriptions) > 1:
            time.sleep(0.01)
        send_until_cut_off(slow)
        quick.send({"type": "ping"})
        assert quick.receive_type("pong") == {}


def test_pongs_for_a_client_who_does_not_read_pile_up_nowhere(server: FakeServer, session: Session) -> None:
    pings = Frame(OP_PING, bytes(125)).serialize(mask=True) * 1000
    with served(server.state) as (address, connections), raw_socket(address, session, receive_buffer=4096) as slow:
        [connection] = connections
        largest = 0
        for _ in range(100):
            with contextlib.suppress(ConnectionError):  # the write deadline may come first
                slow.connection.sendall(pings)
            largest = max(largest, connection.transport.get_write_buffer_size())
        assert 0 < largest < 1 << 20


def test_a_client_who_is_silent_for_good_is_let_go(
    make_server: MakeServer, run_live: RunLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerscale_server.http.process._PONG_TIMEOUT_S", 0.2)
    server = make_server(num_sessions=1, context_len=4096, event_heartbeat_s=0.1)
    session = server.sessions.create(NewSession("ohlcv")).result(30)
    address = run_live(server.state)
    with connect(socket_url(address, session.session_id)) as answering, raw_socket(address, session) as silent:
        assert silent.frame()[0] == OP_PING
        assert silent.close_code() == 1011
        answering.send(PING.decode())
        messages = [json.loads(answering.recv(TIMEOUT_S)) for _ in range(2)]
        assert [message["type"] for message in messages] == ["connected", "pong"]


def test_shutdown_survives_clients_that_are_leaving(server: FakeServer, session: Session) -> None:
    large = FlashReady(1, "Up?", "yes" * 2_000_000, 0, 0.0, 0)
    with contextlib.ExitStack() as clients:
        with served(server.state) as (address, _):
            leaving = clients.enter_context(raw_socket(address, session, receive_buffer=4096))
            session.post(lambda: session.subscribers.tell(large)).result(30)
            leaving.send(OP_CLOSE, Close(1000, "").serialize())
            staying = clients.enter_context(connect(socket_url(address, session.session_id)))
            assert json.loads(staying.recv(TIMEOUT_S))["type"] == "connected"
        with pytest.raises(ConnectionClosed) as caught:
            staying.recv(TIMEOUT_S)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012


def test_binary_frames_are_an_error_and_no_more(address: str, session: Session) -> None:
    with raw_socket(address, session) as raw:
        raw.send(OP_BINARY, PING)
        assert json.loads(raw.frame()[1])["type"] == "error"
        raw.send(OP_TEXT, PING)
        assert json.loads(raw.frame()[1])["type"] == "pong"
