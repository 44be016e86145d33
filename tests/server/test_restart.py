"""The server as a process of its own that is stopped, killed, and started again on the same state directory."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server_process import TIMEOUT_S, ServerProcess
from tests.support.session_api import answered, create, ok, push, settle

QUESTION = {"prompt": "\nIs the price rising or falling? It is", "max_tokens": 8, "temperature": 0, "clear_after": 1}


class Server:
    """A running process, and requests to it."""

    def __init__(self, process: ServerProcess, client: httpx.Client) -> None:
        self.process = process
        self._client = client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._client.get(path, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self._client.post(path, json=body, **options)

    def stop(self) -> None:
        self.process.signal(signal.SIGTERM)
        assert self.process.wait() == 0, self.process.events

    def kill(self) -> None:
        self.process.signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def started(model: Path, state: Path) -> Iterator[Server]:
    flags = ("--state-dir", str(state), "--context", "512", "--threads", "2")
    with ServerProcess(model, *flags) as process:
        address = process.wait_until_ready().address
        with httpx.Client(base_url=address, timeout=TIMEOUT_S) as client:
            yield Server(process, client)


def bars(first: int, last: int) -> list[dict[str, Any]]:
    return [{"o": 10 + n, "h": 12.5 + n, "l": 9.75, "c": 11 + n / 2, "v": 1200.0} for n in range(first, last)]


def seen(server: Server, path: str) -> dict[str, Any]:
    """What a client sees of a session, but for when it was used."""
    parts = {each: ok(server.get(f"{path}/{each}")) for each in ("state", "stream/status", "stats", "flash")}
    del parts["state"]["last_used_at"]
    return parts


@pytest.mark.parametrize(
    "model", ["tiny_model_path", pytest.param("real_model_path", marks=pytest.mark.model)], ids=["tiny", "real"]
)
def test_sessions_survive_a_stop_and_a_kill(request: pytest.FixtureRequest, model: str, tmp_path: Path) -> None:
    path_of_model: Path = request.getfixturevalue(model)
    with started(path_of_model, tmp_path) as server:
        session = create(server, type="ohlcv", prompt="Daily bars:\n", window_size=4, flash=["Up or down?"])
        push(server, session, *bars(0, 6))
        answer = ok(server.post(f"{session}/generate", QUESTION))
        answered(server, session)
        before = seen(server, session)
        server.stop()

    with started(path_of_model, tmp_path) as server:
        assert seen(server, session) == before
        again = ok(server.post(f"{session}/generate", QUESTION))
        assert again == answer
        flash = ok(server.post(f"{session}/generate", {"prompt": "Up or down?"}))
        assert flash["flash"] is True, "the answer is fresh"
        ok(server.post(f"{session}/stream/push", {"data": bars(6, 30)}))
        server.stop()

    with started(path_of_model, tmp_path) as server:
        status = settle(server, session)
        assert status["statistics"]["items_processed"] == 30
        assert status["statistics"]["total_dropped"] == 0
        assert ok(server.get(f"{session}/stats"))["count"] == 4
        push(server, session, *bars(30, 32))
        ok(server.post(f"{session}/save", {}))
        saved = seen(server, session)["stream/status"]
        push(server, session, *bars(32, 34))
        server.kill()

    with started(path_of_model, tmp_path) as server:
        assert seen(server, session)["stream/status"] == saved, "the last saved state, and nothing of what came after"
