"""What a machine with a GPU is there for runs from end to end, in small and on torch's CPU device."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from layerscale_core.errors import BackendError
from tests.support.documentation import ROOT

pytestmark = pytest.mark.slow

CASES = {(1, 17), (1, 40), (3, 17), (3, 40)}


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)


def test_a_step_that_fails_stops_no_other_and_what_is_done_stays_done(tmp_path: Path) -> None:
    steps = ("conformance", "int4", "transformers")
    result = run("gpu_run.py", *steps, "--backend", "cuda", "--dry-run", "--results", str(tmp_path))
    assert result.returncode == 1, result.stdout + result.stderr
    [failed] = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert "FAILED conformance: The conformance kit did not run on the device." in failed

    [report], [content] = tmp_path.glob("*.md"), tmp_path.glob("*.json")
    parts = json.loads(content.read_text())
    assert set(parts) == {"int4", "transformers"}
    for system, part in parts.items():
        assert f"gpu_speed.py {system} " in part["command"]
        assert all(each["failure"] is None for each in part["figures"]), part["figures"]
        for work in ("decode", "prefill"):
            rated = [each for each in part["figures"] if each["work"].startswith(work) and each["part"] > 0]
            assert {(each["batch"], each["context"]) for each in rated} == CASES
    assert sum(each["work"].startswith("query of 20 tokens") for each in parts["int4"]["figures"]) == 1
    text = report.read_text()
    assert "The conformance kit did not run on the device." in text
    assert "| layerscale | int4 | prefill of 24 tokens each | 1 | 40 |" in text
    assert "ms at best" in text

    again = run("gpu_run.py", "int4", "--dry-run", "--results", str(tmp_path))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "int4: done before" in again.stdout


def test_a_figure_that_fails_has_its_reason_and_the_next_one_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    speed, figures = importlib.import_module("gpu_speed"), importlib.import_module("gpu_figures")
    decode = figures.Figure("layerscale", "int4", "decode", 32, 19000)

    def refuse() -> float:
        raise speed.torch.OutOfMemoryError("tried to\nallocate 80 GiB")

    assert speed.figure_of(decode, refuse, 0.1).failure == "OutOfMemoryError: tried to allocate 80 GiB"
    measured = speed.figure_of(decode, lambda: 0.2, 0.1)
    assert (measured.milliseconds, measured.part, measured.failure) == (200, 0.5, None)


def test_parts_of_two_devices_make_no_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    report = importlib.import_module("gpu_report")
    for name, device in (("bf16", "one GPU"), ("int4", "another GPU")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"device": device}))
    with pytest.raises(ValueError, match="parts of 2 devices: another GPU; one GPU"):
        report.write_report(tmp_path, tmp_path)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    with pytest.raises(BackendError, match="backend 'cuda' of plugin cuda"):
        importlib.import_module("gpu_speed").open_gpu("cuda")
