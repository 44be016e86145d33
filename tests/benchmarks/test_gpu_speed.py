"""The GPU benchmark runs from end to end, in small and on torch's CPU device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documentation import ROOT

pytestmark = pytest.mark.slow


def test_writes_every_figure_with_the_command_and_a_profile(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_speed.py"), "--dry-run", "--results", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert result.returncode == 0, result.stdout + result.stderr
    [report], [content] = tmp_path.glob("*.md"), tmp_path.glob("*.json")
    run = json.loads(content.read_text())
    assert "gpu_speed.py --dry-run" in run["command"]
    decode = {
        (each["system"], each["weights"], each["batch"], each["context"])
        for each in run["figures"]
        if each["work"] == "decode" and each["part"] > 0
    }
    ours = {("layerscale", weights, *case) for weights in ("bf16", "int8", "int4") for case in CASES}
    assert decode == ours | {("transformers", "bf16", *case) for case in CASES}
    assert sum(each["work"].startswith("query of 20 tokens") for each in run["figures"]) == 3
    assert "| layerscale | int4 | prefill | 1 | 24 |" in report.read_text()
    assert set(run["profiles"]) == {"bf16", "int8", "int4"}


CASES = ((1, 17), (1, 40), (3, 17), (3, 40))


def test_without_a_gpu_it_says_so() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_speed.py"), "--backend", "cuda"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert result.returncode != 0
    assert "backend 'cuda' of plugin cuda" in result.stderr
