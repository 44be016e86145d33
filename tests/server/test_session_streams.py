"""Data pushed into a session, and what the session says of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.server.conftest import FakeServer, Gate, MakeServer
from tests.support.session_api import LINE, READING, create, error, ok, push, settle
from tests.support.stream_entries import EXAMPLES, NAMES


@pytest.fixture
def sessions(make_server: MakeServer) -> FakeServer:
    """A server with room for two sessions, whose rings hold five entries."""
    return make_server(num_sessions=2, context_len=1024, ring_entries=5)


def test_before_the_first_push_there_is_nothing(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc", window_size=7)
    assert ok(sessions.get(f"{path}/stream/status")) == {
        "type": "iot",
        "streaming": {
            "initialized": False,
            "running": False,
            "error": False,
            "queue_size": 0,
            "queue_capacity": 5,
            "window_size": 7,
            "process_interval_us": 1000,
        },
        "statistics": {
            "total_enqueued": 0,
            "total_dropped": 0,
            "batches_processed": 0,
            "items_processed": 0,
            "total_process_time_us": 0,
            "avg_process_time_us": 0.0,
        },
        "data": {"initialized": False, "data_count": 0, "total_data_tokens": 0, "pos_next": 4},
    }
    assert ok(sessions.get(f"{path}/stats"))["count"] == 0


def test_a_push_is_acknowledged_and_then_computed(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    ack = ok(sessions.post(f"{path}/stream/push", {"data": [READING] * 3}))
    assert ack.pop("queue_size") <= 3
    assert ack == {"pushed": 3, "dropped": 0, "queue_capacity": 5, "total_enqueued": 3, "total_dropped": 0}
    status = settle(sessions, path)
    statistics = status["statistics"]
    assert statistics["avg_process_time_us"] == statistics["total_process_time_us"] / statistics["batches_processed"]
    assert status["streaming"]["initialized"] is status["streaming"]["running"] is True
    assert status["data"] == {
        "initialized": True,
        "data_count": 3,
        "total_data_tokens": 3 * len(LINE),
        "pos_next": len("?abc\n") + 3 * len(LINE),
    }


def test_an_empty_push_does_nothing(sessions: FakeServer) -> None:
    path = create(sessions)
    ack = ok(sessions.post(f"{path}/stream/push", {"data": []}))
    assert ack == dict.fromkeys(ack, 0) | {"queue_capacity": 5}


@pytest.mark.parametrize("name", NAMES)
def test_the_statistics_of_every_type(sessions: FakeServer, name: str) -> None:
    path = create(sessions, type=name)
    push(sessions, path, EXAMPLES[name], EXAMPLES[name])
    stats = ok(sessions.get(f"{path}/stats"))
    assert list(stats)[:2] == ["type", "count"]
    assert (stats["type"], stats["count"]) == (name, 2)
    assert len(stats) > 5


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (None, "data"),
        ({}, "data"),
        ([1], "data.0"),
        ([READING, {**READING, "val": "1"}], "data.1: entry field 'val'"),
        ([READING, READING, {"sid": "a"}], "data.2: entry field 'val'"),
        ([{**READING, "timestamp": 1.5}], "data.0: entry field 'timestamp'"),
        ([*[READING] * 500, {**READING, "sid": 7}], "data.500: entry field 'sid'"),
        ([{**READING, "lo": 10**400}], "data.0: entry field 'lo'"),
    ],
)
def test_a_wrong_entry_is_named_and_nothing_is_enqueued(sessions: FakeServer, data: Any, field: str) -> None:
    path = create(sessions)
    refused = error(sessions.post(f"{path}/stream/push", {"data": data}), 400)
    assert refused["param"] == "data"
    assert field in refused["message"]
    status = ok(sessions.get(f"{path}/stream/status"))
    assert (status["statistics"]["total_enqueued"], status["statistics"]["total_dropped"]) == (0, 0)


def test_no_number_that_json_has_not(sessions: FakeServer) -> None:
    path = create(sessions)
    body = json.dumps({"data": [{**READING, "val": float("nan")}]})
    error(sessions.request("POST", f"{path}/stream/push", content=body), 400)


def test_a_full_ring_drops_the_newest_and_never_waits(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    ok(sessions.post(f"{path}/mark_prefix", {}))
    gate = Gate(sessions.executor)
    question = {"prompt": "d", "max_tokens": 1}

    async def work(client: Any) -> list[dict[str, Any]]:
        asking = asyncio.create_task(client.post(f"{path}/generate", json=question))
        await asyncio.to_thread(gate.wait_until_reached)
        ok(await client.post(f"{path}/stream/push", json={"data": [READING]}))
        while (await client.get(f"{path}/stream/status")).json()["streaming"]["queue_size"]:
            await asyncio.sleep(0.001)  # a batch is made of it, and waits for the question
        entries = [{**READING, "val": value} for value in range(8)]
        acks = [
            ok(await client.post(f"{path}/stream/push", json={"data": data})) for data in (entries[:4], entries[4:])
        ]
        gate.open()
        ok(await asking)
        return acks

    acks = sessions.run(work)
    assert [(ack["pushed"], ack["dropped"], ack["queue_size"]) for ack in acks] == [(4, 0, 4), (1, 3, 5)]
    assert (acks[-1]["total_enqueued"], acks[-1]["total_dropped"]) == (6, 3)
    settle(sessions, path)
    assert ok(sessions.get(f"{path}/stats"))["last_value"] == 4
    assert "layerscale_stream_entries_dropped_total 3.0" in sessions.get("/metrics").text


def test_a_window_keeps_the_newest(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc", window_size=3)
    push(sessions, path, *({**READING, "val": value} for value in range(5)))
    stats = ok(sessions.get(f"{path}/stats"))
    assert (stats["count"], stats["min_value"], stats["max_value"]) == (3, 2, 4)
    assert ok(sessions.get(f"{path}/stream/status"))["statistics"]["items_processed"] == 5
