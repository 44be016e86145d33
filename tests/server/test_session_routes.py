"""Sessions made, looked at, added to, and deleted."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.server.conftest import FakeServer, Gate, MakeServer
from tests.support.session_api import LINE, READING, create, error, ok, push


@pytest.fixture
def sessions(make_server: MakeServer) -> FakeServer:
    """A server with room for two sessions."""
    return make_server(num_sessions=2, context_len=1024)


def test_a_new_session_says_what_it_is(sessions: FakeServer) -> None:
    made = ok(sessions.post("/v1/sessions/init", {"type": "iot", "prompt": "You watch.", "context": 512}))
    assert re.fullmatch("sess_[0-9a-f]{12}", made.pop("session_id"))
    assert made == {
        "type": "iot",
        "n_tokens": 11,
        "context": 512,
        "window_size": 10_000,
        "flash_queries": 0,
        "pos_max": 10,
    }


@pytest.mark.parametrize("name", ["ohlcv", "iot", "spatial", "event", "vitals"])
def test_every_stream_type(sessions: FakeServer, name: str) -> None:
    assert ok(sessions.get(create(sessions, type=name) + "/state"))["type"] == name


def test_sizes_are_cut_to_what_there_is(sessions: FakeServer) -> None:
    made = ok(sessions.post("/v1/sessions/init", {"type": "iot", "context": 10**20, "window_size": 10**20}))
    assert (made["context"], made["window_size"]) == (1024, 10_000)


def test_flash_queries_from_the_beginning(sessions: FakeServer) -> None:
    path = create(sessions, flash=[{"query": "Up?", "max_tokens": 4}, "Down?", {"query": "Flat?", "max_tokens": 1000}])
    queries = ok(sessions.get(f"{path}/flash"))["flash_queries"]
    assert [(each["id"], each["query"], each["max_tokens"]) for each in queries] == [
        (1, "Up?", 4),
        (2, "Down?", 32),
        (3, "Flat?", 256),
    ]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "type"),
        ({"type": "bars"}, "type"),
        ({"type": 1}, "type"),
        ({"type": "iot", "prompt": 1}, "prompt"),
        ({"type": "iot", "prompt": "x" * 1024}, "prompt"),
        ({"type": "iot", "context": 255}, "context"),
        ({"type": "iot", "context": 512.0}, "context"),
        ({"type": "iot", "window_size": 0}, "window_size"),
        ({"type": "iot", "window_size": "1"}, "window_size"),
        ({"type": "iot", "flash": {}}, "flash"),
        ({"type": "iot", "flash": [{"max_tokens": 3}]}, "flash"),
        ({"type": "iot", "flash": [" "]}, "flash"),
        ({"type": "iot", "flash": [{"query": "Up?", "max_tokens": 1.5}]}, "flash"),
        ({"type": "iot", "flash": [str(index) for index in range(21)]}, "flash"),
    ],
)
def test_bad_sessions_are_refused_and_nothing_is_made(sessions: FakeServer, body: dict[str, Any], param: str) -> None:
    assert error(sessions.post("/v1/sessions/init", body), 400)["param"] == param
    assert ok(sessions.get("/v1/sessions"))["count"] == 0


def test_a_query_given_twice_makes_no_session(sessions: FakeServer) -> None:
    refused = error(sessions.post("/v1/sessions/init", {"type": "iot", "flash": ["Up?", "Up?"]}), 409)
    assert (refused["type"], refused["code"]) == ("conflict_error", "duplicate_flash_query")
    assert ok(sessions.get("/v1/sessions"))["count"] == 0
    assert create(sessions)
    assert create(sessions)


def test_one_session_too_many(sessions: FakeServer) -> None:
    paths = [create(sessions), create(sessions)]
    refused = error(sessions.post("/v1/sessions/init", {"type": "iot"}), 503)
    assert (refused["type"], refused["code"]) == ("server_error", "max_sessions_reached")
    ok(sessions.request("DELETE", paths[0]))
    assert create(sessions)


def test_the_list_is_in_order_of_creation(sessions: FakeServer) -> None:
    paths = [create(sessions, prompt="abc"), create(sessions)]
    listed = ok(sessions.get("/v1/sessions"))
    assert (listed["count"], listed["max_sessions"]) == (2, 2)
    assert ["/v1/sessions/" + each["session_id"] for each in listed["sessions"]] == paths
    first = listed["sessions"][0]
    created_at = first.pop("created_at")
    assert first.pop("last_used_at") >= created_at > 1_700_000_000
    assert first == {
        "session_id": paths[0].removeprefix("/v1/sessions/"),
        "n_tokens": 4,
        "context": 1024,
        "prefix_end": 0,
        "cache_usage": 4 / 1024,
        "in_use": False,
    }


def test_the_state_has_every_field(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc", window_size=5)
    ok(sessions.post(f"{path}/mark_prefix", {}))
    push(sessions, path, READING, READING)
    state = ok(sessions.get(f"{path}/state"))
    begin = len("?abc\n")
    end = begin + 2 * len(LINE)
    assert state["context_text"] == "<bos>abc\n" + 2 * LINE
    assert state["data_region"] == {"start": begin, "end": end, "window_size": 5}
    assert (state["n_tokens"], state["pos_min"], state["pos_max"], state["pos_next"]) == (end, 0, end - 1, end)
    assert (state["prefix_end"], state["data_count"], state["pending_prefill"]) == (4, 2, 0)
    assert (state["cache_usage"], state["in_use"], state["type"]) == (end / 1024, False, "iot")
    assert (state["session_id"], state["context"]) == (path.removeprefix("/v1/sessions/"), 1024)


def test_text_is_appended_for_good(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    assert ok(sessions.post(f"{path}/append", {"text": " def"})) == {
        "n_tokens_added": 4,
        "total_tokens": 8,
        "pos_max": 7,
    }
    assert ok(sessions.post(f"{path}/append", {"text": ""}))["n_tokens_added"] == 0
    assert ok(sessions.get(f"{path}/state"))["context_text"] == "<bos>abc def"


@pytest.mark.parametrize(
    ("body", "code"), [({}, None), ({"text": 1}, None), ({"text": "x" * 1024}, "context_length_exceeded")]
)
def test_text_that_cannot_be_appended(sessions: FakeServer, body: dict[str, Any], code: str | None) -> None:
    path = create(sessions)
    refused = error(sessions.post(f"{path}/append", body), 400)
    assert (refused["param"], refused["code"]) == ("text", code)
    assert ok(sessions.get(f"{path}/state"))["n_tokens"] == 1


def test_the_prefix_is_marked_once_it_is_computed(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    ok(sessions.post(f"{path}/append", {"text": " def"}))
    for _ in range(2):
        assert ok(sessions.post(f"{path}/mark_prefix", {}))["prefix_end"] == 8
    state = ok(sessions.get(f"{path}/state"))
    assert (state["prefix_end"], state["pending_prefill"]) == (8, 0)
    push(sessions, path, READING)
    assert error(sessions.post(f"{path}/mark_prefix", {}), 400)["code"] == "data_already_ingested"


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", "/state"),
        ("DELETE", ""),
        ("POST", "/append"),
        ("POST", "/mark_prefix"),
        ("POST", "/generate"),
        ("POST", "/stream/push"),
        ("GET", "/stream/status"),
        ("GET", "/stats"),
        ("POST", "/flash"),
        ("GET", "/flash"),
        ("DELETE", "/flash/1"),
    ],
)
def test_an_unknown_session_is_not_found_before_the_body_is_read(sessions: FakeServer, method: str, rest: str) -> None:
    refused = error(sessions.request(method, f"/v1/sessions/sess_000000000000{rest}", content=b"not JSON"), 404)
    assert (refused["type"], refused["code"]) == ("not_found_error", "session_not_found")


def test_a_deleted_session_is_gone(sessions: FakeServer) -> None:
    path = create(sessions)
    assert ok(sessions.request("DELETE", path)) == {"success": True, "session_id": path.removeprefix("/v1/sessions/")}
    error(sessions.get(f"{path}/state"), 404)
    error(sessions.request("DELETE", path), 404)


def test_a_session_deleted_while_it_answers_ends_the_answer(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    ok(sessions.post(f"{path}/mark_prefix", {}))
    gate = Gate(sessions.executor)

    async def work(client: Any) -> tuple[Any, Any, Any]:
        running = asyncio.create_task(client.post(f"{path}/generate", json={"prompt": "d", "max_tokens": 500}))
        await asyncio.to_thread(gate.wait_until_reached)
        waiting = asyncio.create_task(client.post(f"{path}/append", json={"text": "e"}))
        deleting = asyncio.create_task(client.delete(path))
        await asyncio.sleep(0)
        gate.open()
        return await running, await waiting, await deleting

    running, waiting, deleted = sessions.run(work)
    ok(deleted)
    assert error(running, 404)["code"] == "session_not_found"
    assert waiting.status_code in (200, 404)  # it may have come after the deletion, or before


def test_nothing_new_is_taken_while_the_server_drains(sessions: FakeServer) -> None:
    path = create(sessions)
    sessions.state.is_draining = True
    for route in ("/v1/sessions/init", *(path + rest for rest in ("/append", "/generate", "/stream/push", "/flash"))):
        assert error(sessions.post(route, {}), 503)["code"] == "shutting_down"
    ok(sessions.get(f"{path}/state"))
    ok(sessions.request("DELETE", path))


def test_a_full_queue_of_stateless_requests_does_not_concern_sessions(make_server: MakeServer) -> None:
    server = make_server(num_sessions=1, max_waiting=1)
    path = create(server, prompt="abc")
    gate = Gate(server.executor)

    async def work(client: Any) -> list[int]:
        body = {"prompt": "x", "max_tokens": 1}
        tasks = [asyncio.create_task(client.post("/v1/completions", json=body)) for _ in range(2)]
        await asyncio.to_thread(gate.wait_until_reached)
        tasks += [asyncio.create_task(client.post("/v1/completions", json=body)) for _ in range(3)]
        question = asyncio.create_task(client.post(f"{path}/generate", json={"prompt": "d", "max_tokens": 1}))
        await asyncio.sleep(0.05)
        gate.open()
        statuses = [(await task).status_code for task in tasks]
        assert 429 in statuses
        return [(await question).status_code]

    assert server.run(work) == [200]


def test_sessions_show_in_the_list_of_models_and_in_the_metrics(sessions: FakeServer) -> None:
    scheduler = ok(sessions.get("/v1/models"))["server"]["scheduler"]
    assert (scheduler["max_sessions"], scheduler["max_sequences"]) == (2, scheduler["max_concurrent"] + 2)
    path = create(sessions, prompt="abc", flash=["Up?"])
    push(sessions, path, READING, READING)
    metrics = sessions.get("/metrics").text
    assert "layerscale_sessions_open 1.0" in metrics
    assert "layerscale_sessions_max 2.0" in metrics
    assert "layerscale_stream_entries_enqueued_total 2.0" in metrics
    assert "layerscale_stream_entries_processed_total 2.0" in metrics
    ok(sessions.request("DELETE", path))
    metrics = sessions.get("/metrics").text
    assert "layerscale_sessions_open 0.0" in metrics
    assert "layerscale_stream_entries_processed_total 2.0" in metrics  # counters never fall


def test_only_answers_count_as_generations(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc", flash=["Up?"])
    ok(sessions.post(f"{path}/append", {"text": "d"}))
    ok(sessions.post(f"{path}/mark_prefix", {}))
    push(sessions, path, READING)
    assert "layerscale_time_to_first_token_seconds_count 0.0" in sessions.get("/metrics").text
    ok(sessions.post(f"{path}/generate", {"prompt": "e", "max_tokens": 3}))
    metrics = sessions.get("/metrics").text
    assert "layerscale_time_to_first_token_seconds_count 1.0" in metrics
    assert 'layerscale_generations_total{reason="length"} 1.0' in metrics
