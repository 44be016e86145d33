"""The server as a process of its own, with a tiny real model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server_process import TIMEOUT_S, ServerProcess
from tests.support.tiny_folder import write_tiny_folder
from tests.support.tiny_gguf import write_tiny_llama

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 5}
ENDLESS = HI | {"max_tokens": 1_000_000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def long_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose answers take far longer than any test."""
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "long.gguf", context=1_000_000)


@pytest.fixture
def serving(long_model_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(long_model_path, "--drain-timeout", "60", "--context", "200000") as running:
        yield running.wait_until_ready()


class Stream:
    """A streamed answer, read on a thread."""

    def __init__(self, address: str, body: dict[str, Any]) -> None:
        self.lines: list[str] = []
        self.has_begun = threading.Event()
        self.status = 0
        self._thread = threading.Thread(target=self._read, args=(address, body))
        self._thread.start()
        assert self.has_begun.wait(TIMEOUT_S)

    def _read(self, address: str, body: dict[str, Any]) -> None:
        with httpx.stream("POST", address + CHAT, json=body, timeout=TIMEOUT_S) as response:
            self.status = response.status_code
            for line in response.iter_lines():
                if line:
                    self.lines.append(line)
                    self.has_begun.set()

    def wait(self) -> list[str]:
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        return self.lines


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command to its end, which must come by itself."""
    return subprocess.run(
        [sys.executable, "-m", "layerscale_server", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def test_serves_from_binding_to_a_clean_end(tiny_model_path: Path) -> None:
    with ServerProcess(tiny_model_path) as running:
        running.wait_until_ready()
        assert httpx.get(running.address + "/v1/health").status_code == 200
        answer = httpx.post(running.address + CHAT, json=HI).json()
        assert answer["model"] == "tiny"
        assert answer["usage"]["completion_tokens"] == 5
        running.signal()
        assert running.wait() == 0
    messages = [event["message"] for event in running.events]
    assert messages[0].startswith(f"listening on {running.address}, loading ")
    assert "memory plan" in messages
    assert messages[-1] == "stopped"
    plan = next(event for event in running.events if event["message"] == "memory plan")
    assert (plan["context"], plan["burst_slots"], plan["backend"]) == (512, 2, "cpu")
    assert not [event for event in running.events if event["level"] not in ("info", "debug")]


def test_a_folder_of_safetensors_is_served_as_a_file_is(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "Tiny-0.1B")
    with ServerProcess(folder) as running:
        running.wait_until_ready()
        [model] = httpx.get(running.address + "/v1/models").json()["data"]
        request = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        answer = httpx.post(running.address + "/v1/chat/completions", json=request).json()
    assert model["id"] == "Tiny-0.1B"
    assert answer["usage"]["completion_tokens"] >= 1


def test_sigterm_lets_a_stream_finish_and_takes_nothing_new(serving: ServerProcess) -> None:
    stream = Stream(serving.address, ENDLESS | {"max_tokens": 1500})
    serving.signal()
    serving.wait_for("SIGTERM: draining")
    refused = httpx.post(serving.address + CHAT, json=HI)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "shutting_down"
    assert httpx.get(serving.address + "/health").status_code == 503
    lines = stream.wait()
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert serving.wait() == 0


def test_drain_limit_ends_streams_with_a_last_event(long_model_path: Path) -> None:
    with ServerProcess(long_model_path, "--drain-timeout", "0.2", "--context", "200000") as running:
        stream = Stream(running.wait_until_ready().address, ENDLESS)
        running.signal(signal.SIGINT)
        lines = stream.wait()
        assert running.wait() == 0
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "shutting_down"


def test_second_signal_shortens_the_drain(serving: ServerProcess) -> None:
    stream = Stream(serving.address, ENDLESS)
    serving.signal()
    serving.wait_for("SIGTERM: draining")
    serving.signal()
    lines = stream.wait()
    assert lines[-1] == "data: [DONE]"
    assert "shutting_down" in lines[-2]
    assert serving.wait() == 0


def test_a_client_who_leaves_frees_its_slot(serving: ServerProcess) -> None:
    with httpx.stream("POST", serving.address + CHAT, json=ENDLESS, timeout=TIMEOUT_S) as response:
        next(response.iter_lines())
    with httpx.Client(base_url=serving.address) as client:
        while "layerscale_requests_running 0.0" not in client.get("/metrics").text:
            pass
        assert 'layerscale_generations_total{reason="cancelled"} 1.0' in client.get("/metrics").text


def test_busy_port_is_one_line(tiny_model_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run("--model", str(tiny_model_path), "--host", "127.0.0.1", "--port", str(port))
    assert result.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in last_line(result)


def test_bad_host_is_one_line(tiny_model_path: Path) -> None:
    result = run("--model", str(tiny_model_path), "--host", "no.such.host.invalid")
    assert result.stderr.count("\n") == 1
    assert "cannot listen on no.such.host.invalid:8080" in last_line(result)


def test_missing_model_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "missing.gguf")
    assert path in last_line(run("--model", path, "--host", "127.0.0.1", "--port", "0"))


def test_broken_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00")
    assert str(path) in last_line(run("--model", str(path), "--host", "127.0.0.1", "--port", "0"))


def test_context_above_the_trained_one_gives_both_numbers(tiny_model_path: Path) -> None:
    result = run("--model", str(tiny_model_path), "--context", "513", "--host", "127.0.0.1", "--port", "0")
    assert "--context 513 is more than the 512 tokens" in last_line(result)


def test_unknown_backend_lists_the_known_ones(tiny_model_path: Path) -> None:
    line = last_line(run("--model", str(tiny_model_path), "--backend", "tpu", "--host", "127.0.0.1", "--port", "0"))
    assert "'tpu'" in line
    assert "cpu" in line


def test_key_that_grants_nothing_stops_the_start_and_is_not_shown(tiny_model_path: Path) -> None:
    environment = {"LAYERSCALE_LICENSE_KEY": "SECRET-123"}
    result = run("--model", str(tiny_model_path), "--port", "0", environment=environment)
    assert "licence" in last_line(result)
    assert "SECRET-123" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_flags_that_change_nothing_are_named_once(tiny_model_path: Path) -> None:
    flags = ("--cpu-offload-gb", "0.5", "--sessions", "3")
    environment = {"LAYERSCALE_LICENSE_KEY": " "}  # as good as none
    with ServerProcess(tiny_model_path, *flags, environment=environment) as running:
        running.wait_until_ready()
        models = httpx.get(running.address + "/v1/models").json()
    warnings = [event["message"] for event in running.events if event["level"] == "warning"]
    assert warnings == [
        "LAYERSCALE_LICENSE_KEY is set and empty: without a key this is the free tier, open to everybody",
        "--sessions 3 is more than the free tier's limit of 1, which holds instead",
        "--cpu-offload-gb changes nothing on the cpu backend: all weights are in CPU memory anyway",
    ]
    assert models["server"]["scheduler"]["max_sessions"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_anything_is_served_ends_the_process(tiny_model_path: Path, number: signal.Signals) -> None:
    with ServerProcess(tiny_model_path) as running:
        running.wait_until_listening()
        running.signal(number)
        assert running.wait() == 0


def test_signal_while_loading_ends_the_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent_hub:
        hub = f"http://127.0.0.1:{silent_hub.getsockname()[1]}"
        with ServerProcess("acme/model", environment={"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"}) as running:
            running.wait_until_listening()
            assert httpx.get(running.address + "/v1/health").status_code == 503
            assert httpx.get(running.address + "/v1/models").json()["data"] == []
            assert httpx.post(running.address + CHAT, json=HI).json()["error"]["code"] == "model_loading"
            running.signal()
            assert running.wait() == 0


@pytest.mark.model
def test_real_model_knows_a_capital(real_model_path: Path) -> None:
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    with ServerProcess(real_model_path) as running:
        running.wait_until_ready()
        answer = httpx.post(running.address + CHAT, json=question, timeout=TIMEOUT_S).json()
    assert answer["choices"][0]["message"]["content"] == "The capital of France is Paris."
    assert answer["choices"][0]["finish_reason"] == "stop"
