"""A LayerScale server as a child process: started, waited for until it is ready, stopped cleanly."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

READY_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
POLL_INTERVAL_S = 0.02

_ADDRESS = re.compile(r"http://\S+?:(\d+)")


class ServerFailedError(Exception):
    """The server did not become ready, or ended by itself."""


class ServerProcess:
    """A ``layerscale`` command; its log goes to a file, so that it never waits for a reader."""

    def __init__(self, command: Sequence[str], log_path: Path) -> None:
        self._command = list(command)
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> float:
        """Start and wait until it accepts requests; returns how long that took, in seconds.

        Raises:
            ServerFailedError: it ended, or is not ready within ``READY_LIMIT_S``.
        """
        started = time.monotonic()
        with self._log_path.open("wb") as log:
            # A session of its own: Ctrl-C reaches the parent alone, which then stops the server in order.
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        while not self._is_ready():
            if self._process.poll() is not None:
                raise ServerFailedError(f"it ended with exit code {self._process.returncode}")
            if time.monotonic() - started > READY_LIMIT_S:
                raise ServerFailedError(f"it is not ready after {READY_LIMIT_S:.0f} s")
            time.sleep(POLL_INTERVAL_S)
        return time.monotonic() - started

    def wait(self) -> None:
        """Wait until it ends.

        Raises:
            ServerFailedError: always, if it ever does: nobody asked it to.
        """
        assert self._process is not None
        raise ServerFailedError(f"it ended with exit code {self._process.wait()}")

    def stop(self) -> int | None:
        """Let it finish what runs, then end it; kill it only if that takes too long. Idempotent.

        Returns:
            Its exit code; None if it was never started.
        """
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def log(self) -> str:
        """All that it has printed so far."""
        return self._log_path.read_text(errors="replace")

    def _is_ready(self) -> bool:
        """Whether the log names the address it chose, and health answers there."""
        address = _ADDRESS.search(self.log())
        if address is None:
            return False
        self.url = f"http://127.0.0.1:{address[1]}"
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False
