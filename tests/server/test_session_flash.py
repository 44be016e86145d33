"""Flash queries over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import FakeServer, MakeServer
from tests.support.session_api import READING, answered, create, error, ok, push


@pytest.fixture
def sessions(make_server: MakeServer) -> FakeServer:
    """A server with room for two sessions."""
    return make_server(num_sessions=2, context_len=1024)


def test_a_query_before_its_first_answer(sessions: FakeServer) -> None:
    path = create(sessions)
    registered = ok(sessions.post(f"{path}/flash", {"query": "Up?"}))
    assert registered == {"id": 1, "query": "Up?", "max_tokens": 32, "n_tokens": 3, "total_flash_queries": 1}
    assert ok(sessions.get(f"{path}/flash")) == {
        "flash_queries": [
            {
                "id": 1,
                "query": "Up?",
                "max_tokens": 32,
                "n_tokens": 3,
                "has_answer": False,
                "value": "",
                "data_version": 0,
                "confidence": 0.0,
                "evaluated_at": 0,
            }
        ],
        "count": 1,
        "current_data_version": 0,
    }


def test_every_batch_is_followed_by_answers(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc", flash=[{"query": "Up?", "max_tokens": 2}])
    values = set()
    for version in (1, 2):
        push(sessions, path, READING)
        (query,) = answered(sessions, path)
        assert (query["has_answer"], query["data_version"], query["confidence"]) == (True, version, 0.5)
        assert query["evaluated_at"] > 1_700_000_000
        values.add(query["value"])
    assert len(values) == 2


def test_a_query_registered_after_the_data_is_answered_too(sessions: FakeServer) -> None:
    path = create(sessions)
    push(sessions, path, READING)
    ok(sessions.post(f"{path}/flash", {"query": "Up?", "max_tokens": 2}))
    assert answered(sessions, path)[0]["data_version"] == 1


@pytest.mark.parametrize(("wanted", "effective"), [(-5, 1), (0, 1), (7, 7), (257, 256), (10**30, 256)])
def test_lengths_are_clamped_and_never_refused(sessions: FakeServer, wanted: int, effective: int) -> None:
    path = create(sessions)
    body = {"query": "Up?", "max_tokens": wanted}
    assert ok(sessions.post(f"{path}/flash", body))["max_tokens"] == effective


@pytest.mark.parametrize(("too_many", "status"), [(0, 200), (1, 400)])
def test_a_query_that_leaves_no_room_for_an_answer_is_refused(sessions: FakeServer, too_many: int, status: int) -> None:
    prompt, context_len = "abc", 256
    query = "q" * (context_len - len(f"<{prompt}") - 1 + too_many)
    later = sessions.post(f"{create(sessions, prompt=prompt, context=context_len)}/flash", {"query": query})
    body = {"type": "iot", "prompt": prompt, "context": context_len, "flash": [query]}
    at_once = sessions.post("/v1/sessions/init", body)
    for response, param in ((later, "query"), (at_once, "flash")):
        assert response.status_code == status
        if status == 400:
            told = response.json()["error"]
            assert (told["param"], told["code"]) == (param, "context_length_exceeded")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": " \n"}, "query"),
        ({"query": 1}, "query"),
        ({"query": "Up?", "max_tokens": "3"}, "max_tokens"),
        ({"query": "Up?", "max_tokens": True}, "max_tokens"),
    ],
)
def test_bad_queries_are_refused(sessions: FakeServer, body: dict[str, Any], param: str) -> None:
    path = create(sessions)
    assert error(sessions.post(f"{path}/flash", body), 400)["param"] == param
    assert ok(sessions.get(f"{path}/flash"))["count"] == 0


def test_the_same_query_twice_is_a_conflict(sessions: FakeServer) -> None:
    path = create(sessions, flash=["Up?"])
    refused = error(sessions.post(f"{path}/flash", {"query": "Up?"}), 409)
    assert (refused["type"], refused["code"]) == ("conflict_error", "duplicate_flash_query")


def test_no_more_than_twenty(sessions: FakeServer) -> None:
    path = create(sessions, flash=[str(index) for index in range(20)])
    assert error(sessions.post(f"{path}/flash", {"query": "Up?"}), 400)["param"] == "query"
    assert ok(sessions.request("DELETE", f"{path}/flash/7")) == {"success": True, "remaining": 19}
    assert ok(sessions.post(f"{path}/flash", {"query": "Up?"}))["id"] == 21


@pytest.mark.parametrize("flash_id", ["2", "0", "-1", "01", "x", "9" * 5000])
def test_an_unknown_query_is_not_found(sessions: FakeServer, flash_id: str) -> None:
    path = create(sessions, flash=["Up?"])
    refused = error(sessions.request("DELETE", f"{path}/flash/{flash_id}"), 404)
    assert refused["code"] == "flash_query_not_found"
