"""Signals: drain, end, leave."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future

import pytest

from layerscale_server.assembly import Assembly
from layerscale_server.http.process import HttpProcess
from tests.server.conftest import FakeServer


class PanicError(BaseException):
    """What comes of a library in Rust."""


def test_a_load_that_ends_in_a_panic_ends_the_process(server: FakeServer) -> None:
    loading = Future[Assembly]()
    loading.set_exception(PanicError())
    process = HttpProcess(server.state, loading, "http://x", 0.0)
    with pytest.raises(PanicError):
        asyncio.run(process._become_ready())
    assert process._server.should_exit


def test_third_signal_leaves_at_once(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)

    async def work() -> None:
        process = HttpProcess(server.state, Future[Assembly](), "http://x", 0.0)
        process._on_signal("SIGTERM")
        await asyncio.sleep(0)
        assert server.state.is_draining
        process._on_signal("SIGTERM")
        assert exits == []
        process._on_signal("SIGTERM")
        assert exits == [1]

    asyncio.run(work())
