"""The licence key is nowhere to be seen; in processes of their own, because this is about processes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from layerscale_server.settings import LICENSE_KEY_VARIABLE
from tests.support.license_authority import TODAY, LicenseAuthority
from tests.support.server_process import TIMEOUT_S, ServerProcess

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 2}

_TAKE = """
import ctypes, os, resource
from pathlib import Path
from layerscale_server.key_protection import forbid_core_files, take_from_environment
environ = Path("/proc/self/environ")
has_environ = environ.exists()
if has_environ:
    assert b"PLANTED" in environ.read_bytes()
assert take_from_environment("KEY") == "PLANTED é"
assert take_from_environment("KEY") is None
assert "KEY" not in os.environ
assert not has_environ or b"PLANTED" not in environ.read_bytes()
assert os.system('test -z "$KEY"') == 0
forbid_core_files()
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert not has_environ or ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
print("done")
"""


def test_the_environment_forgets_the_key_and_no_core_file_is_written() -> None:
    environment = {**os.environ, "KEY": " PLANTED é\n"}
    result = subprocess.run(
        [sys.executable, "-c", _TAKE], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert result.stdout == "done\n", result.stderr


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LicenseAuthority:
    return LicenseAuthority(tmp_path_factory.mktemp("authority"))


def windows_of(key: str, size: int = 16) -> set[str]:
    """Every piece of a key, so that half of it does not pass unseen."""
    return {key[start : start + size] for start in range(len(key) - size + 1)}


def test_a_planted_key_is_in_no_output_at_debug_level(tiny_model_path: Path, authority: LicenseAuthority) -> None:
    key = authority.issue(expires=TODAY + timedelta(days=5))
    environment = {**authority.environment, LICENSE_KEY_VARIABLE: key}
    with ServerProcess(tiny_model_path, "--log-level", "debug", environment=environment) as running:
        running.wait_until_ready()
        shown = str(ask_with(running, key))
        shown += seen_by_others(running.process.pid)
        running.signal()
        assert running.wait() == 0
    shown += str(running.events)
    assert {event["level"] for event in running.events} >= {"debug", "info"}
    assert not [piece for piece in windows_of(key) if piece in shown]
    assert [event["level"] for event in running.events if event["logger"] == "layerscale.license"] == ["warning"]


def seen_by_others(pid: int) -> str:
    """What Linux tells other processes of this one, which must also be unable to leave a core file."""
    process = Path("/proc") / str(pid)
    if not process.exists():
        return ""
    assert ["Max", "core", "file", "size", "0", "0"] in [
        line.split()[:6] for line in (process / "limits").read_text().splitlines()
    ]
    try:
        environment = (process / "environ").read_text()
    except PermissionError:  # we are not root, and the process is closed to others
        environment = ""
    return environment + (process / "cmdline").read_text() + (process / "comm").read_text()


def ask_with(running: ServerProcess, key: str) -> list[str]:
    """Everything the server says to requests that carry the key in all the right and wrong places."""
    right = {"authorization": f"Bearer {key}"}
    attempts = [
        httpx.post(running.address + CHAT, json=HI, headers=right),
        httpx.get(running.address + "/v1/models", headers={"x-api-key": key}),
        httpx.get(running.address + "/v1/models", headers={"x-api-key": key[:-1]}),
        httpx.get(running.address + "/v1/models", params={"api_key": key}),
        httpx.post(running.address + CHAT, json=HI | {"temperature": key, key: key}, headers=right),
        httpx.post(running.address + CHAT, content=f'{{"{key}": '.encode(), headers=right),
        httpx.get(running.address + "/metrics", headers=right),
        httpx.get(running.address + "/unknown", headers=right),
    ]
    assert [response.status_code for response in attempts] == [200, 200, 401, 401, 400, 400, 200, 404]
    server = attempts[1].json()["server"]
    assert server["licensed"] is True
    assert 2 < server["scheduler"]["max_concurrent"] <= 32
    return [response.text + str(response.headers) for response in attempts]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("malformed", "malformed"),
        ("cut short", "malformed"),
        ("forged", "wrongly signed"),
        ("stranger", "unknown authority"),
        ("of another kind", "no installed plugin recognises it"),
    ],
)
def test_a_key_that_grants_nothing_stops_the_start_with_one_line(
    tmp_path: Path, authority: LicenseAuthority, fault: str, words: str
) -> None:
    key = authority.issue()
    payload, signature = key.split(".")
    wrong = {
        "malformed": key.replace("lsk1_", "lsk1_?"),
        "cut short": key[:-10],
        "forged": f"{payload}.{authority.issue(holder='other').split('.')[1]}",
        "stranger": LicenseAuthority(tmp_path / "stranger").issue(),
        "of another kind": f"key-{signature}",
    }[fault]
    result = subprocess.run(
        [sys.executable, "-m", "layerscale_server", "--model", "unused", "--port", "0", "--log-level", "debug"],
        env={**os.environ, **authority.environment, LICENSE_KEY_VARIABLE: wrong},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("layerscale: ")
    assert words in line
    assert not [piece for piece in windows_of(wrong) if piece in line]
