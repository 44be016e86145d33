"""``layerscale pull``, in a process of its own, configured by the environment as users configure it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stand_in_hub import StandInHub, StandInRepository


def run(name: str, hub: StandInHub, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "layerscale_server", "pull", name],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def model(hub: StandInHub, tiny_model_path: Path) -> None:
    hub.repositories["org/tiny"] = StandInRepository({"tiny.gguf": tiny_model_path.read_bytes()})


def test_prints_the_path_alone_and_says_elsewhere_what_it_fetches(
    hub: StandInHub, tmp_path: Path, tiny_model_path: Path
) -> None:
    result = run("org/tiny", hub, tmp_path)
    assert result.returncode == 0, result.stderr
    path = Path(result.stdout.removesuffix("\n"))
    assert path.is_relative_to(tmp_path)
    assert path.read_bytes() == tiny_model_path.read_bytes()
    assert re.fullmatch(r".* INFO .*: downloading tiny\.gguf of org/tiny \(.* MB\)\n", result.stderr)


def test_offline_it_finds_what_was_pulled_and_asks_nobody(hub: StandInHub, tmp_path: Path) -> None:
    online = run("org/tiny", hub, tmp_path)
    hub.requests.clear()
    offline = run("org/tiny", hub, tmp_path, HF_HUB_OFFLINE="1")
    assert (offline.stdout, offline.stderr) == (online.stdout, "")
    assert hub.requests == []


def test_offline_what_was_never_pulled_is_one_line_and_exit_1(hub: StandInHub, tmp_path: Path) -> None:
    result = run("org/single", hub, tmp_path, HF_HUB_OFFLINE="1")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"layerscale: org/single is not in the cache, and HF_HUB_OFFLINE forbids asking {hub.url}"
    ]
    assert hub.requests == []
