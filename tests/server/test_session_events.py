"""``GET /v1/sessions/{id}/events``: what subscribers are told over server-sent events."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

from layerscale_core.sessions import FlashReady, NewFlashQuery, NewSession, Session
from layerscale_core.specs import PRO_TIER
from layerscale_server.state import ServerState
from tests.server.conftest import PRO_KEY, FakeServer, Gate, MakeServer
from tests.support.live_sessions import BAR, TIMEOUT_S, Listener, Talker, listening, talking

RunLive = Callable[[ServerState], str]


def flash(query: str) -> NewFlashQuery:
    return NewFlashQuery(query, tuple(query.encode()), 4)


def make_session(server: FakeServer, *queries: str) -> Session:
    return server.sessions.create(NewSession("ohlcv", tuple(b"Bars."), flash=tuple(map(flash, queries)))).result(30)


def push(server: FakeServer, session: Session, number: int = 1) -> None:
    server.sessions.push(session, [BAR] * number)


@pytest.fixture
def server(make_server: MakeServer) -> FakeServer:
    return make_server(num_sessions=1, context_len=4096)


@pytest.fixture
def address(server: FakeServer, run_live: RunLive) -> str:
    return run_live(server.state)


def test_frames_byte_by_byte(server: FakeServer, address: str) -> None:
    session = make_session(server, "Up?")
    with listening(address, session.session_id) as listener:
        headers = listener.response.headers
        assert headers["content-type"] == "text/event-stream"
        assert headers["cache-control"] == "no-cache"
        assert "content-encoding" not in headers
        connected = f'{{"type":"connected","session_id":"{session.session_id}","data_version":0,"streaming":false,'
        assert listener.frame() == f'event: connected\ndata: {connected}"flash_queries":1}}'.encode()
        push(server, session)
        updated = rb'event: data_updated\ndata: {"type":"data_updated","data_version":1,"data_count":1,"pos_next":\d+}'
        assert re.fullmatch(updated, listener.frame())
        answer = rb'"id":1,"query":"Up\?","value":"[^"\n]+","data_version":1,"confidence":[\d.]+,"evaluated_at":\d+}'
        assert re.fullmatch(rb'event: flash_ready\ndata: {"type":"flash_ready",' + answer, listener.frame())
        server.sessions.delete(session.session_id).result(30)
        assert listener.rest() == []


def test_only_ascii_is_sent(server: FakeServer, address: str) -> None:
    session = make_session(server, "Où\u2028ça\x85?")
    with listening(address, session.session_id) as listener:
        listener.frame()
        push(server, session)
        frames = [listener.frame(), listener.frame()]
    assert all(frame.isascii() for frame in frames)
    assert json.loads(frames[1].split(b"data: ")[1])["query"] == "Où\u2028ça\x85?"


def test_stored_answers_are_replayed_after_connected(server: FakeServer, address: str) -> None:
    session = make_session(server, "Up?", "Down?")
    with listening(address, session.session_id) as first:
        assert first.event()["flash_queries"] == 2
        push(server, session)
        assert first.event()["type"] == "data_updated"
        live = [first.event(), first.event()]
    with listening(address, session.session_id) as second:
        connected = second.event()
        assert (connected["type"], connected["data_version"], connected["streaming"]) == ("connected", 1, True)
        assert [second.event(), second.event()] == live


def test_the_version_comes_before_its_answers(server: FakeServer, address: str) -> None:
    session = make_session(server, "Up?", "Down?")
    with listening(address, session.session_id) as listener:
        told = [listener.event()]
        for version in range(1, 6):
            push(server, session)
            while told[-1]["type"] != "flash_ready" or told[-1]["data_version"] != version or told[-1]["id"] != 2:
                told.append(listener.event())
    updates = [event["data_version"] for event in told if event["type"] == "data_updated"]
    assert updates == [1, 2, 3, 4, 5]
    newest = 0
    for event in told:
        newest = event["data_version"] if event["type"] == "data_updated" else newest
        assert event["data_version"] <= newest


def test_heartbeat_in_silence(make_server: MakeServer, run_live: RunLive) -> None:
    server = make_server(num_sessions=1, context_len=4096, event_heartbeat_s=0.1)
    session = make_session(server)
    with listening(run_live(server.state), session.session_id) as listener:
        listener.frame()
        assert [listener.frame(), listener.frame()] == [b": heartbeat"] * 2
        push(server, session)
        assert listener.event()["type"] == "data_updated"


def test_head_ends_with_the_head_and_leaves_no_subscriber(server: FakeServer, address: str) -> None:
    session = make_session(server)
    path = f"{address}/v1/sessions/{session.session_id}/events"
    with httpx.Client(timeout=TIMEOUT_S) as client:
        response = client.head(path)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-type"] == "text/event-stream"
        assert client.head(address + "/v1/models").status_code == 200, "the connection can be used again"
    while num_subscribers(address):
        pass


def test_one_listener_too_many_is_refused_however_it_listens(make_server: MakeServer, run_live: RunLive) -> None:
    server = make_server(num_sessions=1, context_len=4096, event_subscribers=1)
    session, address = make_session(server), run_live(server.state)
    path = f"/v1/sessions/{session.session_id}"
    with talking(address, session.session_id):
        response = httpx.get(f"{address}{path}/events")
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        assert "event_subscribers" in response.json()["error"]["message"]
        with pytest.raises(InvalidStatus) as refusal, talking(address, session.session_id):
            pass
        assert refusal.value.response.status_code == 429


def test_unknown_session(address: str) -> None:
    response = httpx.get(address + "/v1/sessions/sess_0/events")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "session_not_found"


def test_events_need_the_key(make_server: MakeServer, run_live: RunLive) -> None:
    server = make_server(num_sessions=1, context_len=4096, tier=PRO_TIER, license_key=PRO_KEY)
    session, address = make_session(server), run_live(server.state)
    assert httpx.get(f"{address}/v1/sessions/{session.session_id}/events").status_code == 401
    with listening(address, session.session_id, headers={"x-api-key": PRO_KEY}) as listener:
        assert listener.event()["type"] == "connected"


def num_subscribers(address: str) -> float:
    families = text_string_to_metric_families(httpx.get(address + "/metrics").text)
    return next(family.samples[0].value for family in families if family.name == "layerscale_event_subscribers")


def test_a_client_who_leaves_is_forgotten(server: FakeServer, address: str) -> None:
    session = make_session(server)
    with listening(address, session.session_id) as listener, talking(address, session.session_id):
        listener.event()
        assert num_subscribers(address) == 2
    while num_subscribers(address):
        pass
    assert session.post(lambda: session.subscribers._subscribers).result(30) == []


def test_a_slow_reader_is_closed_and_the_others_are_not(
    make_server: MakeServer, run_live: RunLive, logs: io.StringIO
) -> None:
    server = make_server(num_sessions=1, context_len=4096, stream_events=16, write_deadline_s=0.3)
    session, address = make_session(server), run_live(server.state)
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as slow, talking(address, session.session_id) as quick:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((host, int(port)))
        slow.sendall(f"GET /v1/sessions/{session.session_id}/events HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        while num_subscribers(address) < 2:
            pass
        for version in range(300):  # told as after an evaluation: large answers fill the sockets' buffers soon
            large = FlashReady(1, "Up?", "yes" * 20_000, version, 0.0, 0)
            session.post(partial(session.subscribers.tell, large)).result(30)
            assert quick.receive_type("flash_ready")["data_version"] == version
        while '"path": "/v1/sessions/' not in logs.getvalue():
            time.sleep(0.01)  # the connection lasts until the write deadline
        quick.send({"type": "ping"})
        assert quick.receive_type("pong") == {}
        assert num_subscribers(address) == 1
    assert "a subscriber leaves its events unread" in logs.getvalue()


def test_every_one_of_100_subscribers_sees_every_version(server: FakeServer, address: str) -> None:
    session = make_session(server)
    num_versions = 10
    seen: list[list[int]] = []

    def follow(subscriber: Listener | Talker) -> None:
        versions: list[int] = []
        while len(versions) < num_versions:
            event = subscriber.event() if isinstance(subscriber, Listener) else subscriber.receive()["data"]
            if event.get("type") != "connected":
                versions.append(event["data_version"])
        seen.append(versions)

    with contextlib.ExitStack() as stack:
        subscribers = [
            stack.enter_context((listening if index % 2 else talking)(address, session.session_id))
            for index in range(100)
        ]
        threads = [threading.Thread(target=follow, args=(each,)) for each in subscribers]
        for thread in threads:
            thread.start()
        for version in range(1, num_versions + 1):
            push(server, session)
            while session.view.data_version < version:
                time.sleep(0.001)
        for thread in threads:
            thread.join(TIMEOUT_S)
        assert seen == [list(range(1, num_versions + 1))] * 100


def test_events_go_on_while_a_step_is_held(server: FakeServer, address: str) -> None:
    session = make_session(server)
    with listening(address, session.session_id) as listener, talking(address, session.session_id) as talker:
        listener.event()
        gate = Gate(server.executor)
        talker.push(BAR)
        assert talker.receive_type("push_ack") == {"pushed": 1, "dropped": 0, "queue_size": 1}
        gate.wait_until_reached()
        talker.push(BAR, BAR)
        assert talker.receive_type("push_ack")["pushed"] == 2
        gate.open()
        assert listener.event()["data_version"] == 1
