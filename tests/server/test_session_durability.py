"""Sessions saved, restored and forked over HTTP."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import FakeServer, Gate, MakeServer
from tests.support.session_api import READING, answered, create, error, ok, push


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def durable(make_server: MakeServer, state_dir: Path) -> FakeServer:
    """A server with room for two sessions, which keeps them."""
    return make_server(num_sessions=2, context_len=1024, state_dir=state_dir)


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


def seen(server: FakeServer, path: str) -> dict[str, Any]:
    """What a client sees of a session, but for its id and times."""
    state = ok(server.get(f"{path}/state"))
    for field in ("session_id", "created_at", "last_used_at"):
        del state[field]
    return {"state": state} | {each: ok(server.get(f"{path}/{each}")) for each in ("stream/status", "stats", "flash")}


def forget(server: FakeServer, path: str) -> None:
    """Close a session as if the process had ended."""
    server.sessions.delete(id_of(path)).result(30)


def test_a_saved_session_is_restored_as_it_was(durable: FakeServer, state_dir: Path) -> None:
    path = create(durable, prompt="You watch.", flash=["Up?"])
    push(durable, path, READING, READING)
    answered(durable, path)
    before = seen(durable, path)
    saved = ok(durable.post(f"{path}/save", {}))
    assert saved == {
        "session_id": id_of(path),
        "data_version": before["flash"]["current_data_version"],
        "bytes": (state_dir / f"{id_of(path)}.session").stat().st_size,
    }
    push(durable, path, READING)
    forget(durable, path)
    made = ok(durable.post("/v1/sessions/restore", {"session_id": id_of(path)}))
    assert made["session_id"] == id_of(path)
    assert made.keys() == ok(durable.post("/v1/sessions/init", {"type": "iot"})).keys()
    assert seen(durable, path) == before
    answer = ok(durable.post(f"{path}/generate", {"prompt": "Up?"}))
    assert answer["flash"] is True


def test_a_session_goes_on_from_where_it_was_saved(durable: FakeServer) -> None:
    path = create(durable, prompt="You watch.")
    ok(durable.post(f"{path}/save", {}))
    first = ok(durable.post(f"{path}/generate", {"prompt": "And?", "max_tokens": 9}))["text"]
    forget(durable, path)
    ok(durable.post("/v1/sessions/restore", {"session_id": id_of(path)}))
    assert ok(durable.post(f"{path}/generate", {"prompt": "And?", "max_tokens": 9}))["text"] == first


def test_a_fork_goes_on_by_itself(make_server: MakeServer) -> None:
    server = make_server(num_sessions=2, context_len=1024)
    path = create(server, prompt="You watch.", flash=["Up?"])
    push(server, path, READING)
    answered(server, path)
    before = seen(server, path)
    made = ok(server.post(f"{path}/fork", {}))
    fork = f"/v1/sessions/{made['session_id']}"
    assert made["flash_queries"] == 1
    assert made["session_id"] != id_of(path)
    assert seen(server, fork) == before
    push(server, fork, READING)
    assert seen(server, fork)["stats"]["count"] == 2
    assert seen(server, path) == before
    assert error(server.post(f"{path}/fork", {}), 503)["code"] == "max_sessions_reached"
    assert error(server.post("/v1/sessions/sess_000000000000/fork", {}), 404)["code"] == "session_not_found"


def test_without_a_directory_it_is_said_what_is_missing(make_server: MakeServer) -> None:
    server = make_server(num_sessions=1, context_len=1024)
    path = create(server)
    for response in (
        server.post(f"{path}/save", {}),
        server.post("/v1/sessions/restore", {"session_id": id_of(path)}),
    ):
        refusal = error(response, 400)
        assert refusal["code"] == "no_state_dir"
        assert "--state-dir" in refusal["message"]


def test_what_cannot_be_restored_is_refused(durable: FakeServer, state_dir: Path) -> None:
    def restore(session_id: object, status: int) -> object:
        return error(durable.post("/v1/sessions/restore", {"session_id": session_id}), status)["code"]

    path = create(durable)
    ok(durable.post(f"{path}/save", {}))
    assert restore(id_of(path), 409) == "session_is_open"
    assert restore("sess_000000000000", 404) == "session_not_found"
    assert restore("../../etc/passwd", 404) == "session_not_found"
    assert error(durable.post("/v1/sessions/restore", {}), 400)["param"] == "session_id"
    assert error(durable.post("/v1/sessions/restore", {"session_id": 1}), 400)["param"] == "session_id"
    forget(durable, path)
    create(durable)
    other = create(durable)
    assert restore(id_of(path), 503) == "max_sessions_reached"
    forget(durable, other)
    file = state_dir / f"{id_of(path)}.session"
    file.write_bytes(file.read_bytes()[:-1])
    assert restore(id_of(path), 409) == "saved_state_refused"
    assert restore(id_of(path), 404) == "session_not_found"
    assert (state_dir / "rejected" / file.name).exists()


def test_a_save_that_fails_is_told(durable: FakeServer, state_dir: Path) -> None:
    path = create(durable)
    (state_dir / f"{id_of(path)}.partial").mkdir()
    assert error(durable.post(f"{path}/save", {}), 500)["code"] == "state_not_saved"
    assert error(durable.post("/v1/sessions/sess_000000000000/save", {}), 404)["code"] == "session_not_found"


def test_a_disk_that_fails_for_a_while_costs_no_session(
    durable: FakeServer, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = create(durable)
    ok(durable.post(f"{path}/save", {}))
    forget(durable, path)

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    wanted = {"session_id": id_of(path)}
    with monkeypatch.context() as patch:
        patch.setattr("layerscale_core.sessions.state_directory._open", fail)
        assert error(durable.post("/v1/sessions/restore", wanted), 500)["code"] == "state_not_read"
        patch.setattr(Path, "unlink", fail)
        assert error(durable.request("DELETE", path), 500)["code"] == "state_not_saved"
    assert not (state_dir / "rejected").exists()
    assert ok(durable.post("/v1/sessions/restore", wanted))["session_id"] == id_of(path)


def test_a_deleted_session_leaves_no_file(durable: FakeServer, state_dir: Path) -> None:
    path, closed = create(durable), create(durable)
    for each in (path, closed):
        ok(durable.post(f"{each}/save", {}))
    forget(durable, closed)
    for each in (path, closed):
        assert ok(durable.request("DELETE", each)) == {"success": True, "session_id": id_of(each)}
        assert error(durable.request("DELETE", each), 404)["code"] == "session_not_found"
    assert list(state_dir.iterdir()) == []


def test_a_save_waits_for_the_request_that_runs(durable: FakeServer) -> None:
    path = create(durable, prompt="You watch.")
    ok(durable.post(f"{path}/generate", {"prompt": "And?", "max_tokens": 2}))
    gate = Gate(durable.executor)

    async def both(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        answer = asyncio.create_task(client.post(f"{path}/generate", json={"prompt": "So?", "max_tokens": 3}))
        await asyncio.to_thread(gate.wait_until_reached)
        save = asyncio.create_task(client.post(f"{path}/save", json={}))
        await asyncio.sleep(0)
        gate.open()
        return await answer, await save

    answer, save = map(ok, durable.run(both))
    assert save["session_id"] == id_of(path)
    forget(durable, path)
    made = ok(durable.post("/v1/sessions/restore", {"session_id": id_of(path)}))
    assert made["n_tokens"] == answer["total_tokens"]
