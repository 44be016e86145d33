"""LayerScale as a user starts it: the ``layerscale`` command in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

import psutil

from layerscale_server.bench.errors import BenchmarkError

READY_LIMIT_S = 120
STOP_LIMIT_S = 30
POLL_INTERVAL_S = 0.02

_LISTENING = re.compile(rb"listening on (http://[\w.]+:\d+)")


class LayerScaleProcess:
    """A running ``layerscale --model …``. Use as a context manager.

    Args:
        log: a file with a name, which takes what the server logs.

    Raises:
        BenchmarkError: it does not become ready.

    Attributes:
        address: where it listens, as a URL.
        start_s: from starting the process to the first ``GET /v1/health`` that answers 200.
    """

    def __init__(self, model: Path | str, log: IO[bytes], *flags: str) -> None:
        command = [sys.executable, "-m", "layerscale_server", "--model", str(model)]
        started = time.perf_counter()
        self._process = subprocess.Popen(  # noqa: S603 (this interpreter)
            [*command, "--host", "127.0.0.1", "--port", "0", *flags], stdout=log, stderr=subprocess.STDOUT
        )
        self.address = ""
        try:
            self._wait_until_ready(Path(log.name), started + READY_LIMIT_S)
        except BaseException:
            self._process.kill()
            raise
        self.start_s = time.perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(STOP_LIMIT_S)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """Memory resident now."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    @property
    def cpu_s(self) -> float:
        """Processor time that the process has taken so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def description(self) -> dict[str, Any]:
        """The server block of ``/v1/models``."""
        return dict(json.loads(self._get("/v1/models")[1])["server"])

    def _wait_until_ready(self, log_path: Path, deadline: float) -> None:
        while not self._is_ready(log_path):
            if self._process.poll() is not None or time.perf_counter() > deadline:
                last_line = log_path.read_text().strip().rpartition("\n")[2]
                raise BenchmarkError(f"the server did not start: {last_line.removeprefix('layerscale: ')}")
            time.sleep(POLL_INTERVAL_S)

    def _is_ready(self, log_path: Path) -> bool:
        if not self.address:
            found = _LISTENING.search(log_path.read_bytes())
            self.address = found[1].decode() if found else ""
        if not self.address:
            return False
        try:
            return self._get("/v1/health")[0] == http.client.OK
        except OSError:
            return False

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=READY_LIMIT_S)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
