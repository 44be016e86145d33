"""The command line: options, refusals, exit codes. Nothing is served here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from layerscale_core.errors import LicenseError
from layerscale_core.version import __version__
from layerscale_server import cli
from layerscale_server.limits import Limits
from layerscale_server.settings import SETTING_ROWS, Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Receives the settings that would be served."""
    settings: list[Settings] = []
    monkeypatch.setattr("layerscale_server.serve.serve", settings.append)
    return settings


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    code = end.value.code
    assert code is None or isinstance(code, int)
    return code or 0


def test_every_flag_reaches_the_settings(served: list[Settings]) -> None:
    arguments = {
        "model": "some/model.gguf",
        "context": 512,
        "host": "127.0.0.1",
        "port": 0,
        "cpu_offload_gb": 1.5,
        "quantization": "int8",
        "activation_type": "int8",
        "kv_cache_type": "int4",
        "prefix_cache": "off",
        "response_cache_mib": 64,
        "prompt_lookup": "off",
        "log_format": "json",
        "sessions": 3,
        "backend": "cpu",
        "threads": 2,
        "model_name": "name",
        "log_level": "debug",
        "drain_timeout": 1.0,
        "state_dir": "/var/lib/sessions",
        "adopt_sessions": "on",
    }
    assert set(arguments) == {row.name for row in SETTING_ROWS}
    flags = [part for row in SETTING_ROWS for part in (row.flag, str(arguments[row.name]))]
    assert run(*flags, "--limit", "json_depth=9") == 0
    (settings,) = served
    assert settings == Settings(**arguments, limits=Limits(json_depth=9))  # type: ignore[arg-type]


def test_only_the_model_is_required(served: list[Settings]) -> None:
    assert run("--model", "m") == 0
    assert served == [Settings(model="m")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--model"]),
        (["--model"], ["--model"]),
        (["--model", ""], ["--model"]),
        (["--model", "m", "--context", "255"], ["--context", "255", "256", "1048576"]),
        (["--model", "m", "--context", "1048577"], ["--context", "1048577", "1048576"]),
        (["--model", "m", "--context", "-1"], ["--context"]),
        (["--model", "m", "--context", "many"], ["--context", "many"]),
        (["--model", "m", "--port", "65536"], ["--port", "65536", "65535"]),
        (["--model", "m", "--port", "-1"], ["--port"]),
        (["--model", "m", "--cpu-offload-gb", "-0.5"], ["--cpu-offload-gb"]),
        (["--model", "m", "--cpu-offload-gb", "nan"], ["--cpu-offload-gb"]),
        (["--model", "m", "--kv-cache-type", "q8"], ["--kv-cache-type", "fp16", "int8", "int4"]),
        (["--model", "m", "--log-format", "xml"], ["--log-format", "text", "json"]),
        (["--model", "m", "--sessions", "-1"], ["--sessions"]),
        (["--model", "m", "--sessions", "10001"], ["--sessions", "10000"]),
        (["--model", "m", "--state-dir", ""], ["--state-dir", "empty"]),
        (["--model", "m", "--host="], ["--host", "empty"]),
        (["--model", "m", "--limit", "nonsense=1"], ["--limit", "nonsense"]),
        (["--model", "m", "--limit", "body_bytes=1"], ["--limit", "body_bytes"]),
        (["--model", "m", "--license-key", "TOP-SECRET"], ["LAYERSCALE_LICENSE_KEY"]),
        (["--license-key=TOP-SECRET"], ["LAYERSCALE_LICENSE_KEY"]),
        (["--license-key"], ["LAYERSCALE_LICENSE_KEY"]),
        (["plan", "--model", "m", "--license-key", "TOP-SECRET"], ["LAYERSCALE_LICENSE_KEY"]),
        (["license", "inspect", "--license-key=TOP-SECRET"], ["LAYERSCALE_LICENSE_KEY"]),
        (["--sessions", "3", "plan", "--model", "m"], ["--sessions", "plan"]),
        (["--limit", "body_bytes=4096", "doctor"], ["--limit", "doctor"]),
        (["plan", "--model", "m", "--gpu-memory", "much"], ["--gpu-memory", "layerscale plan --help"]),
        (["bench", "rates", "--nonsense"], ["--nonsense", "layerscale bench rates --help"]),
        (["--nonsense"], ["--nonsense"]),
        (["nonsense"], ["nonsense"]),
        (["--model", "m\x1b[31m\nforged line", "--port", "x\ny"], ["--port"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    served: list[Settings], capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("layerscale: ")
    assert all(word in line for word in words), line
    assert "SECRET" not in line
    assert served == []


def test_failure_to_start_is_one_line_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(settings: Settings) -> None:
        raise LicenseError("no such\nlicence")

    monkeypatch.setattr("layerscale_server.serve.serve", fail)
    assert run("--model", "m") == 1
    assert capsys.readouterr().err == "layerscale: no such\\x0alicence\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["plugins", "--json"]], ids=" ".join)
def test_an_output_that_cannot_be_written_is_one_line_and_exit_1(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "layerscale_server", *arguments]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "layerscale: cannot write to standard output: No space left on device\n"


def test_help_shows_every_option_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    for word in [*(row.flag for row in SETTING_ROWS), "--limit", "--version", "bench", "doctor", "license", "plugins"]:
        assert word in text
    assert "--license-key" not in text
    assert "LAYERSCALE_LICENSE_KEY" in text


def test_a_group_without_a_command_shows_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench") == 2
    text = capsys.readouterr().err
    assert all(f"\n  {name} " in text for name in ("rates", "serving", "streams"))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"layerscale {__version__}\n"


def test_commands_are_imported_on_demand() -> None:
    group: Any = cli.cli
    context = click.Context(group)
    assert group.list_commands(context) == ["bench", "doctor", "license", "plan", "plugins", "pull"]
    for name in group.list_commands(context):
        assert group.get_command(context, name).name == name
    assert group.get_command(context, "nonsense") is None


def test_parsing_the_command_line_loads_no_server() -> None:
    heavy = ["fastapi", "uvicorn", "numpy", "pydantic", "jinja2", "torch", "httpx2"]
    code = f"import sys, layerscale_server.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
