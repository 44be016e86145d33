"""The ``layerscale`` command as a child process, its log read as it comes."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

TIMEOUT_S = 60.0


class ServerProcess:
    """Serves a model on a free port of the loopback; leaving the ``with`` kills whatever is left."""

    def __init__(self, model: Path | str, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "layerscale_server", "--model", str(model), "--log-format", "json"]
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0", *flags],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.events: list[dict[str, Any]] = []
        self.address = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def wait_for(self, beginning: str) -> dict[str, Any]:
        """The next event of the log whose message begins so."""
        while (line := self._lines.get(timeout=TIMEOUT_S)) is not None:
            self.events.append(json.loads(line))
            if self.events[-1]["message"].startswith(beginning):
                return self.events[-1]
        raise AssertionError(f"the server ended without saying {beginning!r}: {self.events}")

    def wait_until_listening(self) -> Self:
        self.address = self.wait_for("listening on ")["message"].split()[2].rstrip(",")
        return self

    def wait_until_ready(self) -> Self:
        self.address = self.wait_for("ready on ")["message"].split()[2]
        return self

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code; the rest of the log is in ``events`` then."""
        code = self.process.wait(TIMEOUT_S)
        while (line := self._lines.get(timeout=TIMEOUT_S)) is not None:
            self.events.append(json.loads(line))
        return code
