"""``GET /v1/sessions/{id}/ws``: the conversation over a WebSocket."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

from layerscale_core.sessions import NewFlashQuery, NewSession, Session
from layerscale_core.specs import PRO_TIER
from layerscale_server.http.routes import events
from layerscale_server.state import ServerState
from tests.server.conftest import PRO_KEY, FakeServer, MakeServer
from tests.support.live_sessions import BAR, TIMEOUT_S, Talker, socket_url, talking

RunLive = Callable[[ServerState], str]


def make_session(server: FakeServer, *queries: str) -> Session:
    flash = tuple(NewFlashQuery(query, tuple(query.encode()), 4) for query in queries)
    return server.sessions.create(NewSession("ohlcv", tuple(b"Bars."), flash=flash)).result(30)


@pytest.fixture
def server(make_server: MakeServer) -> FakeServer:
    return make_server(num_sessions=2, context_len=4096)


@pytest.fixture
def address(server: FakeServer, run_live: RunLive) -> str:
    return run_live(server.state)


@pytest.fixture
def talker(server: FakeServer, address: str) -> Iterator[Talker]:
    with talking(address, make_session(server).session_id) as talker:
        yield talker


def refusal(url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Status and error of an upgrade that is refused before the handshake."""
    with pytest.raises(InvalidStatus) as caught, connect(url, **options):
        pass
    response = caught.value.response
    assert "x-request-id" in response.headers
    return response.status_code, json.loads(response.body)["error"]


def close_code(talker: Talker) -> int:
    """The code with which the server closes; nothing else comes before."""
    with pytest.raises(ConnectionClosedOK) as caught:
        talker.connection.recv(TIMEOUT_S)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


def test_connected_says_where_the_session_stands(server: FakeServer, address: str) -> None:
    session = make_session(server, "Up?")
    with connect(socket_url(address, session.session_id)) as connection:
        text = connection.recv(TIMEOUT_S)
    data = f'{{"session_id":"{session.session_id}","data_version":0,"streaming":false,"flash_queries":1}}'
    assert text == f'{{"type":"connected","data":{data}}}'


def test_a_push_is_acknowledged_before_what_it_causes(server: FakeServer, address: str) -> None:
    with talking(address, make_session(server, "Up?").session_id) as talker:
        for version in range(1, 30):
            talker.push(BAR, BAR)
            told = [talker.receive()]
            while (told[-1]["type"], told[-1]["data"].get("data_version")) != ("data_updated", version):
                told.append(talker.receive())
            acks = [index for index, each in enumerate(told) if each["type"] == "push_ack"]
            assert len(acks) == 1
            assert all(each["data"]["data_version"] < version for each in told[: acks[0]])
            assert told[acks[0]]["data"] == {"pushed": 2, "dropped": 0, "queue_size": 2}
            assert told[-1]["data"]["data_count"] == 2 * version


def test_stored_answers_are_replayed(server: FakeServer, address: str) -> None:
    session = make_session(server, "Up?")
    with talking(address, session.session_id) as first, talking(address, session.session_id) as other:
        first.push(BAR)
        first.receive_type("push_ack")
        other.receive_type("data_updated")
        ready = other.receive_type("flash_ready")
        with talking(address, session.session_id) as late:
            assert late.receive_type("flash_ready") == ready


def test_ping_and_close(talker: Talker) -> None:
    talker.send({"type": "ping"})
    assert talker.receive() == {"type": "pong", "data": {}}
    talker.send({"type": "close"})
    assert close_code(talker) == 1000


def test_without_an_upgrade_it_is_said_what_the_route_is(server: FakeServer) -> None:
    response = server.get(f"/v1/sessions/{make_session(server).session_id}/ws")
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("this route is a WebSocket: open it as ws://")
    assert server.get("/v1/sessions/sess_0/ws").status_code == 404


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("", "is empty"),
        ("nothing", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"type":"ping","type":"close"}', "duplicate key"),
        ('{"type":"push","data":[{"o":NaN}]}', "NaN or Infinity"),
        ("{" * 100, "nested deeper"),
        (b'{"type":"ping"}', "text frames"),
        ({}, "type: should be"),
        ({"type": "pull"}, "type: should be"),
        ({"type": ["push"]}, "type: should be"),
        ({"type": "push"}, "data"),
        ({"type": "push", "data": None}, "data"),
        ({"type": "push", "data": {}}, "data"),
        ({"type": "push", "data": [1]}, "data"),
        ({"type": "push", "data": [BAR, {"o": 1.0}]}, "'h'"),
        ({"type": "push", "data": [BAR | {"h": "12"}]}, "'h'"),
    ],
)
def test_a_wrong_message_is_an_error_and_enqueues_nothing(talker: Talker, message: Any, words: str) -> None:
    talker.send(message)
    error = talker.receive_type("error")
    assert error["code"] == 400
    assert words in error["message"]
    talker.push(BAR)
    assert talker.receive_type("push_ack")["pushed"] == 1
    assert talker.receive_type("data_updated")["data_count"] == 1


def test_an_unexpected_failure_is_an_error_and_no_more(talker: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(events, "push_entries", fail)
    talker.push(BAR)
    assert talker.receive_type("error") == {"message": "internal error", "code": 500}
    talker.send({"type": "ping"})
    assert talker.receive_type("pong") == {}


def test_a_draining_server_takes_no_data(server: FakeServer, talker: Talker) -> None:
    server.state.is_draining = True
    talker.push(BAR)
    assert talker.receive_type("error")["code"] == 503
    talker.send({"type": "ping"})
    assert talker.receive_type("pong") == {}


def test_an_empty_push(talker: Talker) -> None:
    talker.push()
    assert talker.receive_type("push_ack") == {"pushed": 0, "dropped": 0, "queue_size": 0}


def test_a_large_push(make_server: MakeServer, run_live: RunLive) -> None:
    server = make_server(num_sessions=1, context_len=4096, ring_entries=100)
    with talking(run_live(server.state), make_session(server).session_id) as talker:
        talker.push(*[BAR] * 2000)
        ack = talker.receive_type("push_ack")
        assert (ack["pushed"], ack["dropped"]) == (100, 1900)


def test_pushes_of_several_sockets_add_up(server: FakeServer, address: str) -> None:
    session = make_session(server)
    num_sockets, num_pushes = 8, 50
    acks: list[dict[str, int]] = []

    def pour() -> None:
        with talking(address, session.session_id) as talker:
            for number in range(num_pushes):
                talker.push(*[BAR] * (number % 3))
            num_acks = 0
            while num_acks < num_pushes:
                if (message := talker.receive())["type"] == "push_ack":
                    num_acks += 1
                    acks.append(message["data"])

    threads = [threading.Thread(target=pour) for _ in range(num_sockets)]
    with talking(address, session.session_id) as watcher:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
        total = num_sockets * sum(number % 3 for number in range(num_pushes))
        assert len(acks) == num_sockets * num_pushes
        assert sum(ack["pushed"] for ack in acks) == session.ring.counts.total_enqueued == total
        assert sum(ack["dropped"] for ack in acks) == session.ring.counts.total_dropped == 0
        versions: list[int] = []
        while session.ring.counts.items_processed < total or versions[-1:] != [session.data_version]:
            versions.append(watcher.receive_type("data_updated")["data_version"])
        assert versions == list(range(1, len(versions) + 1))


def test_a_deleted_session_closes_its_sockets_and_no_others(server: FakeServer, address: str, talker: Talker) -> None:
    session = make_session(server)
    with talking(address, session.session_id) as other:
        server.sessions.delete(session.session_id).result(30)
        assert close_code(other) == 1000
    talker.send({"type": "ping"})
    assert talker.receive_type("pong") == {}


def test_the_end_of_the_server_closes_with_its_own_code(server: FakeServer, talker: Talker) -> None:
    session = server.sessions.all()[0]
    [told] = session.post(lambda: session.subscribers._subscribers).result(30)
    told.args[0].call_soon_threadsafe(server.state.subscriptions.close)  # on the loop of its subscription
    assert close_code(talker) == 1001


def test_upgrades_are_refused_in_plain_http(server: FakeServer, address: str) -> None:
    url = socket_url(address, make_session(server).session_id)
    status, error = refusal(socket_url(address, "sess_0"))
    assert (status, error["code"]) == (404, "session_not_found")
    status, error = refusal(url.replace("/ws", "/other"))
    assert (status, error["type"]) == (404, "not_found_error")
    for origin in ("http://elsewhere.example", "null", f"http://{url.split('/')[2]}.example"):
        status, error = refusal(url, origin=origin)
        assert (status, error["code"]) == (403, "foreign_origin")
    with connect(url, origin=address) as connection:  # type: ignore[arg-type]  # an address is an origin
        assert json.loads(connection.recv(TIMEOUT_S))["type"] == "connected"


def test_a_socket_needs_the_key(make_server: MakeServer, run_live: RunLive) -> None:
    server = make_server(num_sessions=1, context_len=4096, tier=PRO_TIER, license_key=PRO_KEY)
    session, address = make_session(server), run_live(server.state)
    for headers in ({}, {"authorization": "Bearer wrong"}):
        status, error = refusal(socket_url(address, session.session_id), additional_headers=headers)
        assert (status, error["code"]) == (401, "invalid_api_key")
    for headers in ({"authorization": f"Bearer {PRO_KEY}"}, {"x-api-key": PRO_KEY}):
        with talking(address, session.session_id, additional_headers=headers) as talker:
            talker.push(BAR)
            assert talker.receive_type("push_ack")["pushed"] == 1
            talker.receive_type("data_updated")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
NEARLY_RIGHT = st.fixed_dictionaries(
    {"type": st.sampled_from(["push", "ping", "close", "pong", ""]) | JSON},
    optional={"data": st.lists(st.just(BAR) | JSON, max_size=3) | JSON},
)
HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    JSON.map(json.dumps),
    NEARLY_RIGHT.map(json.dumps),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(HOSTILE, max_size=8))
def test_hostile_messages_hurt_nobody(
    server: FakeServer, address: str, talker: Talker, messages: list[str | bytes]
) -> None:
    session = server.sessions.all()[0]
    good_bye = contextlib.suppress(ConnectionClosedOK)  # one of the messages may be one
    with talking(address, session.session_id) as hostile, good_bye:
        for message in messages:
            hostile.send(message)
        hostile.send({"type": "ping"})
        num_pings = 0
        while num_pings < 1 + sum(is_ping(message) for message in messages):
            answer = hostile.receive()
            num_pings += answer["type"] == "pong"
            assert answer["type"] != "error" or answer["data"]["code"] == 400
    talker.send({"type": "ping"})
    while (told := talker.receive())["type"] != "pong":
        assert told["type"] == "data_updated"


def is_ping(message: str | bytes) -> bool:
    try:
        value = json.loads(message, parse_constant=int) if isinstance(message, str) else None
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("type") == "ping"
