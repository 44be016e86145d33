"""Sessions under load, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documentation import ROOT

pytestmark = pytest.mark.slow


def test_acknowledgements_counts_versions_and_subscribers_hold_under_load(tiny_model_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "session_load.py"), "--model", str(tiny_model_path)]
    result = subprocess.run(
        [*command, "--sessions", "6", "--seconds", "4", "--interval", "0.2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "6 sessions: " in result.stdout
    assert result.stdout.endswith("all held\n")
