"""The demo, run as ``nox -s demo`` runs it, on a tiny random model."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.documentation import ROOT

pytestmark = pytest.mark.slow


def demo_command(model: Path, *arguments: str) -> list[str]:
    """The demo's command line."""
    return [sys.executable, str(ROOT / "examples" / "demo" / "demo.py"), "--model", str(model), *arguments]


def run_demo(model: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(demo_command(model, *arguments), capture_output=True, text=True, check=False, timeout=120)


def test_once_it_shows_an_answer_and_what_it_took(tiny_model_path: Path) -> None:
    result = run_demo(tiny_model_path, "--once")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "why is the sky blue?" in result.stdout
    assert re.search(r"TTFT +\d+ ms +request sent → first output token received", result.stdout)
    assert re.search(r"TPOT +[\d.]+ ms +\(last token − first token\) ÷ \(output tokens − 1\)", result.stdout)
    assert re.search(r"speed +\d+ tokens/s", result.stdout)
    assert result.stdout.endswith("stopped\n")


def test_it_serves_at_the_printed_address_until_ctrl_c(tiny_model_path: Path) -> None:
    with subprocess.Popen(demo_command(tiny_model_path), stdout=subprocess.PIPE, text=True, bufsize=1) as demo:
        try:
            assert demo.stdout is not None
            url = next(match[0] for line in demo.stdout if (match := re.search(r"http://[\d.]+:\d+(?=.*Ctrl-C)", line)))
            with urllib.request.urlopen(f"{url}/health") as response:
                assert response.status == 200
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 0
        finally:
            demo.kill()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/health")


def test_a_server_that_does_not_start_is_shown_with_its_own_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    result = run_demo(broken, "--once")
    assert result.returncode == 1
    assert "the server failed: it ended with exit code 1" in result.stdout
    assert "cannot read model file" in result.stdout
