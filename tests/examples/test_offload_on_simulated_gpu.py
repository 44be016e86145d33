"""A model larger than the simulated GPU: refused with the remedy, and served by it, with the same answers."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server_process import ServerProcess
from tests.support.tiny_gguf import write_tiny_llama

TOO_SMALL = "20MiB"
FLAGS = ("--context", "256", "--backend", "simgpu")

MAX_ROUNDING = 0.002
"""Of a log-probability; stored keys and values have 11 bits."""

Environment = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 24 MiB of weights in six layers."""
    path = tmp_path_factory.mktemp("models") / "larger.gguf"
    return write_tiny_llama(path, layers=6, hidden=256, intermediate=1024)


def answers(running: ServerProcess, prompts: list[str], num_tokens: int) -> list[dict[str, Any]]:
    """Greedy completions with their log-probabilities, all prompts at once."""
    running.wait_until_ready()
    request = {"prompt": prompts, "max_tokens": num_tokens, "temperature": 0, "logprobs": 2, "ignore_eos": True}
    answer = httpx.post(running.address + "/v1/completions", json=request, timeout=120)
    assert answer.status_code == 200, answer.text
    choices: list[dict[str, Any]] = answer.json()["choices"]
    return choices


def assert_same(actual: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The same tokens; their log-probabilities but for rounding, which is another on either side."""
    assert [choice["text"] for choice in actual] == [choice["text"] for choice in expected]
    for choice, other in zip(actual, expected, strict=True):
        assert choice["logprobs"]["tokens"] == other["logprobs"]["tokens"]
        logprobs = choice["logprobs"]["token_logprobs"]
        assert logprobs == pytest.approx(other["logprobs"]["token_logprobs"], abs=MAX_ROUNDING)


def refusal(run_python: Callable[..., subprocess.CompletedProcess[str]], model: Path, memory: str) -> str:
    """The last line of a start that fails."""
    arguments = ("--model", str(model), "--host", "127.0.0.1", "--port", "0", *FLAGS)
    result = run_python("-m", "layerscale_server", *arguments, memory=memory)
    assert result.returncode == 1
    return result.stderr.splitlines()[-1]


def test_the_refusals_remedy_serves_the_model_with_the_same_answers(
    model: Path, simulated_gpu_environment: Environment, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    prompts = ["Hello, world", "the more the better", "in the end"]
    with ServerProcess(model, *FLAGS, environment=simulated_gpu_environment("1GiB")) as running:
        alone = answers(running, prompts, 16)
    remedy = re.search(r"; (--cpu-offload-gb) (0\.\d+) or \d+ MiB more memory", refusal(run_python, model, TOO_SMALL))
    assert remedy is not None
    environment = simulated_gpu_environment(TOO_SMALL)
    with ServerProcess(model, *FLAGS, *remedy.groups(), environment=environment) as running:
        assert_same(answers(running, prompts, 16), alone)
        plan = next(event for event in running.events if event["message"] == "memory plan")
        accelerators = httpx.get(running.address + "/v1/models").json()["server"]["accelerators"]
    assert (plan["backend"], plan["available_bytes"]) == ("simgpu", 20 << 20)
    assert plan["weights_bytes"] + plan["cpu_offload"]["weights_bytes"] > 20 << 20
    assert 0 < len(plan["cpu_offload"]["layers"]) < 6
    assert [device["name"] for device in accelerators] == ["simgpu:0"]


def test_the_plan_command_shows_both_sides(
    model: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    arguments = ("plan", "--model", str(model), *FLAGS, "--cpu-offload-gb", "0.01", "--cpu-memory", "1GiB", "--json")
    result = run_python("-m", "layerscale_server", *arguments, memory="40MiB")
    plan = json.loads(result.stdout)
    assert (plan["available_bytes"], plan["cpu_offload"]["available_bytes"]) == (40 << 20, 1 << 30)
    assert plan["cpu_offload"]["layers"] == [0, 1, 2]
    assert "3 of 6 layers (0-2) stay in CPU memory" in result.stderr


@pytest.mark.slow
@pytest.mark.model
def test_a_real_model_answers_the_same(real_model_path: Path, simulated_gpu_environment: Environment) -> None:
    prompts = ["The capital of France is"]
    with ServerProcess(real_model_path, *FLAGS, environment=simulated_gpu_environment("2GiB")) as running:
        alone = answers(running, prompts, 8)
    offloaded = ("--cpu-offload-gb", "0.05")
    environment = simulated_gpu_environment("380MiB")  # the weights take 513
    with ServerProcess(real_model_path, *FLAGS, *offloaded, environment=environment) as running:
        assert_same(answers(running, prompts, 8), alone)
    assert "Paris" in alone[0]["text"]
