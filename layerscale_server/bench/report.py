"""What a benchmark leaves behind: where, when and how it ran, and every sample."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from layerscale_core.host import inspect_host
from layerscale_core.version import __version__
from layerscale_server.bench.errors import BenchmarkError


def describe_run() -> dict[str, Any]:
    """Machine, versions, date and command."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["layerscale", *sys.argv[1:]]),
        "machine": asdict(inspect_host()) | {"system": platform.platform()},
        "versions": {"layerscale": __version__, "python": platform.python_version(), "numpy": version("numpy")},
    }


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report after what ``describe_run`` says."""
    write_text(path, json.dumps(describe_run() | report, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        BenchmarkError: it cannot be written.
    """
    try:
        path.write_text(text)
    except OSError as error:
        raise BenchmarkError(f"cannot write {path}: {error.strerror}") from None
