"""Clients that leave: whatever their request is doing, it ends, and what it held comes back."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.server.conftest import FakeServer, Gate, MakeServer

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 200, "temperature": 0}


class Caller:
    """A client of the bare ASGI application, who can leave."""

    def __init__(self, server: FakeServer, body: dict[str, Any], path: str = CHAT) -> None:
        self._app = server.app
        self._path = path
        self._body = json.dumps(body).encode()
        self._is_sent = False
        self._left = asyncio.Event()
        self.messages: list[dict[str, Any]] = []
        self.has_begun = asyncio.Event()

    async def call(self) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "headers": [],
            "client": ("10.0.0.1", 1),
            "app": self._app,
        }
        await self._app(scope, self._receive, self._send)

    def leave(self) -> None:
        self._left.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._is_sent:
            self._is_sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.messages.append(message)
        if message["type"] == "http.response.body":
            self.has_begun.set()


async def _settled(server: FakeServer) -> None:
    """Wait until the engine holds nothing; the test's timeout is the limit."""
    while (stats := server.engine.stats()).has_work or (
        stats.pool.free_pages + stats.pool.cached_pages < stats.pool.total_pages
    ):
        await asyncio.sleep(0.001)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), 30)

    asyncio.run(bounded())


async def _leave_at_the_gate(server: FakeServer, caller: Caller, gate: Gate) -> None:
    """Call, and leave while the first step is held up."""
    task = asyncio.create_task(caller.call())
    await asyncio.to_thread(gate.wait_until_reached)
    caller.leave()
    await asyncio.sleep(0.05)
    gate.open()
    await task
    await _settled(server)


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
def test_leaving_while_it_is_computed(server: FakeServer, path: str, stream: bool, logs: io.StringIO) -> None:
    gate = Gate(server.executor)

    async def work() -> None:
        caller = Caller(server, BODY | {"stream": stream}, path)
        await _leave_at_the_gate(server, caller, gate)

    run(work)
    assert len(server.executor.batches) == 1, "it went on after the client had left"
    assert '"status": 499' in logs.getvalue()


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_the_queue(server: FakeServer, stream: bool) -> None:
    gate = Gate(server.executor)

    async def work() -> None:
        runners = [Caller(server, BODY | {"max_tokens": 3}) for _ in range(3)]
        tasks = [asyncio.create_task(runner.call()) for runner in runners]
        await asyncio.to_thread(gate.wait_until_reached)
        caller = Caller(server, BODY | {"stream": stream, "messages": [{"role": "user", "content": "never"}]})
        waiting = asyncio.create_task(caller.call())
        while (stats := server.engine.stats()).num_running + stats.num_waiting < 4:
            await asyncio.sleep(0.001)
        caller.leave()
        await asyncio.sleep(0.05)
        gate.open()
        await asyncio.gather(waiting, *tasks)
        await _settled(server)
        assert caller.messages == []
        assert all(runner.messages[0]["status"] == 200 for runner in runners)

    run(work)


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_leaving_a_running_stream(server: FakeServer, path: str) -> None:
    server.executor.before_step = lambda batch: time.sleep(0.005)

    async def work() -> None:
        caller = Caller(server, BODY | {"stream": True}, path)
        task = asyncio.create_task(caller.call())
        await caller.has_begun.wait()
        caller.leave()
        await task
        await _settled(server)

    run(work)
    assert len(server.executor.batches) < 200, "it went on after the client had left"


def test_leaving_before_the_body_is_there(server: FakeServer) -> None:
    async def work() -> None:
        caller = Caller(server, BODY)
        caller._is_sent = True
        caller.leave()
        await caller.call()
        assert caller.messages == []

    run(work)


def test_leaving_one_of_many_prompts_cancels_all(server: FakeServer) -> None:
    gate = Gate(server.executor)

    async def work() -> None:
        caller = Caller(server, {"prompt": ["a"] * 20, "max_tokens": 100}, path="/v1/completions")
        await _leave_at_the_gate(server, caller, gate)

    run(work)
    assert len(server.executor.batches) == 1


def test_a_storm_of_clients_who_leave_at_any_moment(make_server: MakeServer) -> None:
    server = make_server()

    async def visit(number: int) -> None:
        caller = Caller(server, BODY | {"stream": number % 2 == 0, "max_tokens": 1 + number % 40})
        task = asyncio.create_task(caller.call())
        for _ in range(number * 7 % 50):
            await asyncio.sleep(0)
        if number % 3:
            caller.leave()
        await task

    async def work() -> None:
        await asyncio.gather(*(visit(number) for number in range(200)))
        await _settled(server)

    run(work)
