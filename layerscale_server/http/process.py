"""The event loop of a server process: it answers while the model loads, serves it, and drains.

The first SIGTERM or SIGINT drains: no new work, running streams finish within the limit. The second ends what still
runs with a last event. The third ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import signal
import socket
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, cast

import uvicorn

from layerscale_server.assembly import Assembly
from layerscale_server.http.app import create_app
from layerscale_server.http.edge import EdgeProtocol
from layerscale_server.http.edge_websocket import EdgeWebSocket
from layerscale_server.license_watch import watch_license
from layerscale_server.logging import get_logger
from layerscale_server.state import ServerState

_KEEP_ALIVE_S = 75
"""Longer than clients keep an idle connection, so that none is closed just as a request is sent on it."""

_PONG_TIMEOUT_S = 20
"""As long as clients wait for the server's."""

logger = get_logger("layerscale")


class _Server(uvicorn.Server):
    """Uvicorn, which leaves the signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


class HttpProcess:
    """The part of a server process that runs on the event loop.

    Args:
        loading: the model to come.
        address: the URL of the bound socket.
        started: ``time.monotonic`` at the start of the process.
    """

    def __init__(self, state: ServerState, loading: Future[Assembly], address: str, started: float) -> None:
        self._state = state
        self._loading = loading
        self._address = address
        self._started = started
        self._server = make_uvicorn(state)
        self._assembly: Assembly | None = None
        self._num_signals = 0
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, listener: socket.socket) -> None:
        """Serve on a bound socket until the end.

        Raises:
            StartupError: the model cannot be served.
        """
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number.name)
        self._begin(watch_license(self._state.license))
        ready = asyncio.create_task(self._become_ready())
        try:
            await self._server.serve(sockets=[listener])
            if ready.done():
                ready.result()
        finally:
            if self._assembly is not None:
                await asyncio.to_thread(self._assembly.close)
        logger.info("stopped")

    async def _become_ready(self) -> None:
        try:
            self._assembly = await asyncio.wrap_future(self._loading)
        except BaseException:  # a panic of a library in Rust is no Exception
            self._server.should_exit = True
            raise
        self._state.model = self._assembly.model
        seconds = round(time.monotonic() - self._started, 2)
        logger.info(f"ready on {self._address}", model=self._assembly.model.model_id, seconds=seconds)

    def _on_signal(self, name: str) -> None:
        self._num_signals += 1
        if self._num_signals == 1:
            logger.info(f"{name}: draining", limit_s=self._state.settings.drain_timeout)
            self._begin(self._drain())
        elif self._num_signals == 2:
            logger.warning(f"{name} again: ending what still runs")
            self._begin(self._end_all())
        else:
            logger.error(f"{name} a third time: leaving at once")
            os._exit(1)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _drain(self) -> None:
        self._state.is_draining = True
        if self._assembly is not None:
            await asyncio.to_thread(self._assembly.engine.drain, self._state.settings.drain_timeout)
        self._state.subscriptions.close()
        self._server.should_exit = True

    async def _end_all(self) -> None:
        if self._assembly is not None:
            await asyncio.to_thread(self._assembly.engine.stop)


def make_uvicorn(state: ServerState) -> uvicorn.Server:
    """The HTTP server around the application, with the limits of the edge."""
    limits = state.settings.limits
    config = uvicorn.Config(
        create_app(state),
        # Uvicorn only calls them.
        http=cast("type[asyncio.Protocol]", functools.partial(EdgeProtocol, limits=limits)),
        ws=cast("type[asyncio.Protocol]", functools.partial(EdgeWebSocket, limits=limits)),
        ws_ping_interval=limits.event_heartbeat_s,
        ws_ping_timeout=_PONG_TIMEOUT_S,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        # What the engine has ended is on its way to the clients; a slow one gets as long as ever.
        timeout_graceful_shutdown=math.ceil(limits.write_deadline_s),
    )
    return _Server(config)
