"""Limits and deadlines of the edge, on real sockets."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from layerscale_server.state import ServerState
from tests.server.conftest import FakeServer, Gate, MakeServer

RunLive = Callable[[ServerState], str]
HI = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": 0}).encode()


@contextlib.contextmanager
def connected(address: str, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as client:
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(30)
        client.connect((host, int(port)))
        yield client


def read_to_end(client: socket.socket) -> bytes:
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(1 << 16):
            received += piece
    return bytes(received)


def post(body: bytes, path: str = "/v1/chat/completions", extra: str = "connection: close\r\n") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


def send_without_end(client: socket.socket) -> None:
    while True:
        client.sendall(b"y" * 65536)
        time.sleep(0.01)


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])


def get_with_head_of(num_bytes: int) -> bytes:
    """A request whose URL and header fields, counted with their separators, have this size."""
    counted = len("/health") + len("connection: close\r\n") + len("x: \r\n")
    filler = "y" * (num_bytes - counted)
    return f"GET /health HTTP/1.1\r\nconnection: close\r\nx: {filler}\r\n\r\n".encode()


def test_head_at_the_limit_passes_and_one_byte_more_does_not(make_server: MakeServer, run_live: RunLive) -> None:
    address = run_live(make_server().state)
    for size, status in ((16 << 10, 200), ((16 << 10) + 1, 431)):
        with connected(address) as client:
            client.sendall(get_with_head_of(size))
            assert status_of(read_to_end(client)) == status


def test_fields_at_the_limit_pass_and_one_more_does_not(make_server: MakeServer, run_live: RunLive) -> None:
    address = run_live(make_server().state)
    for number, status in ((64, 200), (65, 431)):
        fields = "connection: close\r\n" + "".join(f"x-{index}: y\r\n" for index in range(number - 1))
        with connected(address) as client:
            client.sendall(f"GET /health HTTP/1.1\r\n{fields}\r\n".encode())
            answer = read_to_end(client)
        assert status_of(answer) == status
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["type"] == "invalid_request_error"


def test_endless_header_line_is_cut_off(make_server: MakeServer, run_live: RunLive) -> None:
    address = run_live(make_server().state)
    with connected(address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * (24 << 10))
        assert status_of(client.recv(1 << 16)) == 431
        with pytest.raises(ConnectionError):
            send_without_end(client)


def test_what_is_not_http_is_refused_in_the_envelope(make_server: MakeServer, run_live: RunLive) -> None:
    address = run_live(make_server().state)
    with connected(address) as client:
        client.sendall(b"\x16\x03\x01 what is this\r\n\r\n")
        answer = read_to_end(client)
    assert status_of(answer) == 400
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["message"] == "this is not a valid HTTP request"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_a_refusal_has_an_id_too_that_the_log_knows(
    make_server: MakeServer, run_live: RunLive, logs: io.StringIO, path: str
) -> None:
    address = run_live(make_server(head_bytes=1024).state)
    with connected(address) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nx: {'y' * 1024}\r\n\r\n".encode())
        head, body = read_to_end(client).decode().split("\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    assert fields["request-id"] == fields["x-request-id"]
    assert fields["access-control-allow-origin"] == "*"
    assert json.loads(body).get("request_id", fields["request-id"]) == fields["request-id"]
    assert ("request_id" in json.loads(body)) == (path == "/v1/messages")
    assert f'"request_id": "{fields["request-id"]}"' in logs.getvalue()


def test_slow_head_is_refused(make_server: MakeServer, run_live: RunLive) -> None:
    address = run_live(make_server(header_deadline_s=0.2).state)
    with connected(address) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nx: ")
        assert status_of(read_to_end(client)) == 408


def test_dripping_head_is_refused_all_the_same(make_server: MakeServer, run_live: RunLive) -> None:
    address = run_live(make_server(header_deadline_s=0.5).state)
    with connected(address) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n")
        client.settimeout(0.05)
        answer = b""
        while not answer:
            client.sendall(b"x: y\r\n")
            with contextlib.suppress(TimeoutError):
                answer = client.recv(1 << 16)
        assert status_of(answer) == 408


def test_silent_connection_is_closed_without_a_word(make_server: MakeServer, run_live: RunLive) -> None:
    address = run_live(make_server(header_deadline_s=0.2).state)
    with connected(address) as client:
        assert read_to_end(client) == b""


def test_slow_body_is_refused_and_nothing_is_left_of_it(make_server: MakeServer, run_live: RunLive) -> None:
    server = make_server(body_deadline_s=0.2)
    address = run_live(server.state)
    with connected(address) as client:
        client.sendall(post(HI)[:-5])
        assert status_of(read_to_end(client)) == 408
    assert not server.engine.stats().has_work


def test_deadlines_do_not_hit_a_client_who_waits_for_an_answer(make_server: MakeServer, run_live: RunLive) -> None:
    server = make_server(header_deadline_s=0.2, body_deadline_s=0.2, write_deadline_s=0.2)
    gate = Gate(server.executor)
    with connected(run_live(server.state)) as client:
        client.sendall(post(HI))
        time.sleep(0.6)
        gate.open()
        assert status_of(read_to_end(client)) == 200


def test_connection_is_kept_for_the_next_request_and_pipelined_ones_wait_their_turn(
    make_server: MakeServer, run_live: RunLive
) -> None:
    server = make_server(header_deadline_s=0.3)
    with connected(run_live(server.state)) as client:
        client.sendall(post(HI, extra=""))
        assert status_of(client.recv(1 << 16)) == 200
        time.sleep(0.5)  # an idle connection is no slow head
        client.sendall(post(HI, extra="") + post(HI))
        answers = read_to_end(client)
    assert answers.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("missing", [5, len(HI) + 5])
def test_rest_of_a_request_that_came_too_early_has_a_deadline_too(
    make_server: MakeServer, run_live: RunLive, missing: int
) -> None:
    server = make_server(header_deadline_s=0.2, body_deadline_s=0.2)
    gate = Gate(server.executor)
    with connected(run_live(server.state)) as client:
        client.sendall(post(HI, extra="") + post(HI)[:-missing])
        time.sleep(0.5)
        gate.open()
        answers = read_to_end(client)
    assert answers.startswith(b"HTTP/1.1 200 OK")
    assert answers.count(b"HTTP/1.1 408") == 1


def test_refused_body_is_read_away_so_that_the_answer_arrives(make_server: MakeServer, run_live: RunLive) -> None:
    address = run_live(make_server(body_bytes=10_000).state)
    body = b"x" * (8 << 20)
    with connected(address) as client:
        client.sendall(post(body, extra=""))
        assert status_of(client.recv(1 << 16)) == 413


def test_reader_who_stops_reading_is_cut_off_and_its_generation_ends(
    make_server: MakeServer, run_live: RunLive
) -> None:
    server = make_server(write_deadline_s=0.3, context_len=65_536, stream_events=65_536)
    body = {"prompt": "hi", "max_tokens": 60_000, "logprobs": 20, "stream": True, "temperature": 0}
    address = run_live(server.state)
    with connected(address, receive_buffer=4096) as client:
        client.sendall(post(json.dumps(body).encode(), "/v1/completions"))
        client.recv(100)
        while server.engine.stats().has_work:
            time.sleep(0.01)
        assert sum(len(batch) for batch in server.executor.batches) < 60_000
        assert b"[DONE]" not in read_to_end(client)[-200:]


def test_offer_of_http2_is_not_taken_up(make_server: MakeServer, run_live: RunLive, logs: io.StringIO) -> None:
    offer = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    with connected(run_live(make_server().state)) as client:
        for _ in range(2):
            client.sendall(post(HI, extra=offer))
            assert status_of(client.recv(1 << 16)) == 200
    assert '"warning"' not in logs.getvalue()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health"])
def test_expect_continue_is_answered(make_server: MakeServer, run_live: RunLive, path: str) -> None:
    with connected(run_live(make_server().state)) as client:
        head, body = post(HI, path, "expect: 100-continue\r\nconnection: close\r\n").split(b"\r\n\r\n")
        client.sendall(head + b"\r\n\r\n")
        first = client.recv(1 << 16)
        assert first.startswith(b"HTTP/1.1 100" if path.startswith("/v1") else b"HTTP/1.1 405")
        if first.startswith(b"HTTP/1.1 100"):
            client.sendall(body)
            assert status_of(read_to_end(client)) == 200


def test_server_is_there_for_others_meanwhile(make_server: MakeServer, run_live: RunLive, server: FakeServer) -> None:
    address = run_live(make_server().state)
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connected(address)).sendall(b"POST /v1/chat/completions HTTP/1.1\r\n")
        with connected(address) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")
            assert status_of(read_to_end(client)) == 200
