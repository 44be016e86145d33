"""The demo, run as ``nox -s demo`` runs it, on a tiny random model."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.documentation import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]

TIMEOUT_S = 200


@pytest.fixture
def command(roomy_model_path: Path, bars_path: Path) -> list[str]:
    """The demo's command line."""
    demo = ROOT / "examples" / "demo" / "demo.py"
    return [sys.executable, str(demo), "--model", str(roomy_model_path), "--bars", str(bars_path)]


def test_once_it_shows_answers_and_what_asking_costs(command: list[str], tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    result = subprocess.run(
        [*command, "--once", "--save-screen", str(picture)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    for num_bars in (10, 30, 60):
        assert re.search(
            rf"^{num_bars} bars, \d+ tokens: asked in the session [\d.,]+ ms, everything read again [\d.,]+ ms"
            r" \(\d+ times as long\), registered [\d.,]+ ms$",
            result.stdout,
            re.MULTILINE,
        )
    assert re.search(r"Last: close .*sure by [\d.]+", result.stdout)
    assert result.stdout.endswith("stopped\n")
    assert "asked&#160;in&#160;three&#160;ways" in picture.read_text()


def test_in_a_terminal_it_is_one_screen(command: list[str]) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen([*command, "--once"], stdout=theirs, env=environment) as demo:
        os.close(theirs)
        shown = bytearray()
        while chunk := read_terminal(ours):
            shown += chunk
        assert demo.wait(TIMEOUT_S) == 0
    os.close(ours)
    last_screen = shown.decode().rpartition("answers as they change")[2]
    assert "Next: open" in last_screen
    assert last_screen.count("×") == 3
    assert "asked in the session" not in last_screen


def read_terminal(descriptor: int) -> bytes:
    """What comes next; nothing once nobody can write any more."""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""


def test_it_goes_on_until_ctrl_c_and_the_code_it_prints_asks_the_session(command: list[str]) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as demo:
        try:
            assert demo.stdout is not None
            lines = iter(demo.stdout.readline, "")
            next(line for line in lines if "Ctrl-C" in line)
            next(line for line in lines if line.startswith("from layerscale"))
            code = "from layerscale import LayerScale\n"
            while "print" not in code:
                code += next(lines)
            next(line for line in lines if line.startswith("10 bars, "))
            asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            assert asked.returncode == 0, asked.stderr
            url = re.search(r"http://[\d.]+:\d+", code)
            assert url is not None
            demo.send_signal(signal.SIGINT)
            assert demo.wait(TIMEOUT_S) == 0
        finally:
            demo.kill()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url[0]}/health")


def test_a_server_that_does_not_start_is_shown_with_its_own_words(tmp_path: Path, bars_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    command = [sys.executable, str(ROOT / "examples" / "demo" / "demo.py"), "--model", str(broken)]
    result = subprocess.run(
        [*command, "--bars", str(bars_path), "--once"], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert result.returncode == 1
    assert "the server failed: it ended with exit code 1" in result.stdout
    assert "cannot read model file" in result.stdout
