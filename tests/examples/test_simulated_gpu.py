"""A third party's backend, installed beside LayerScale: found, chosen, served on, and refused where memory ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerscale_core.engine import Engine, EngineLimits, Request, SamplingParams
from layerscale_core.errors import OutOfMemoryError
from layerscale_core.forward import make_executor
from layerscale_core.plugins import ChosenBackend, PluginRegistry
from layerscale_core.specs import BackendOptions, KVLayout
from tests.support.documentation import ROOT
from tests.support.recording_sink import RecordingSink

VARIABLE = "LAYERSCALE_SIMGPU_MEMORY"
CONTEXT_LEN = 64
NUM_SEQUENCES = 9
PROMPT = "Hello, world"

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def registry(simulated_gpu_site: Path, monkeypatch: pytest.MonkeyPatch) -> PluginRegistry:
    """The plugins of an environment in which the example is installed."""
    monkeypatch.syspath_prepend(simulated_gpu_site)
    return PluginRegistry.discover()


def test_the_plugin_is_a_few_hundred_lines_at_most() -> None:
    modules = (ROOT / "examples" / "simulated_gpu" / "layerscale_simulated_gpu").glob("*.py")
    assert 0 < sum(path.read_text().count("\n") for path in modules) <= 300


class TestCommands:
    """What a user sees."""

    def test_layerscale_plugins_lists_it(self, run_python: RunPython) -> None:
        result = run_python("-m", "layerscale_server", "plugins", "--json")
        plugins = {plugin["name"]: plugin for plugin in json.loads(result.stdout)["plugins"]}
        assert plugins["simulated-gpu"]["distribution"] == "layerscale-simulated-gpu 0.1.0"
        assert plugins["simulated-gpu"]["hooks"] == ["layerscale_backends"]
        assert plugins["simulated-gpu"]["cause"] is None

    def test_without_the_device_the_cpu_serves_and_doctor_says_why(self, run_python: RunPython) -> None:
        verdicts = doctor(run_python)
        assert verdicts["cpu"]["is_chosen"]
        assert not verdicts["simgpu"]["is_chosen"]
        assert verdicts["simgpu"]["reason"] == f"scores 0: no simulated GPU: {VARIABLE} is not set"

    def test_with_the_device_it_outranks_the_cpu(self, run_python: RunPython) -> None:
        verdicts = doctor(run_python, memory="2GiB")
        assert verdicts["simgpu"]["is_chosen"]
        assert verdicts["simgpu"]["reason"] == "scores 100: a simulated GPU with 2048 MiB"
        assert verdicts["cpu"]["reason"].startswith("scores 10: ")

    def test_asking_for_the_absent_device_is_an_error_and_not_the_cpu(self, run_python: RunPython) -> None:
        result = run_python("-m", "layerscale_server", "doctor", "--backend", "simgpu", "--json")
        assert result.returncode == 1
        diagnosis = json.loads(result.stdout)
        assert f"cannot serve here: no simulated GPU: {VARIABLE} is not set" in diagnosis["problem"]
        assert diagnosis["devices"] == []

    def test_a_model_beyond_its_memory_ends_the_start_with_one_line(
        self, run_python: RunPython, tiny_model_path: Path
    ) -> None:
        arguments = ("--model", str(tiny_model_path), "--host", "127.0.0.1", "--port", "0", "--log-level", "error")
        result = run_python("-m", "layerscale_server", *arguments, memory="256KiB")
        assert result.returncode == 1
        [line] = result.stderr.splitlines()
        assert line.startswith("layerscale: ")
        assert "MiB" in line

    def test_it_passes_its_own_tests(self, run_python: RunPython, simulated_gpu_source: Path) -> None:
        result = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=simulated_gpu_source)
        assert result.returncode == 0, result.stdout
        assert " passed" in result.stdout


class TestServing:
    """Core's engine over the example's kernels."""

    def test_answers_as_the_cpu_does_alone_and_among_eight_others(
        self, registry: PluginRegistry, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, "64MiB")
        monkeypatch.setenv("LAYERSCALE_CPU_ISA", "numpy")
        chosen = registry.choose_backend()
        assert chosen.backend.name == "simgpu"
        [alone] = answers(registry, chosen, tiny_model_path, [PROMPT])
        others = [f"{PROMPT} {'and more ' * index}" for index in range(8)]
        among_others = answers(registry, chosen, tiny_model_path, [*others[:4], PROMPT, *others[4:]])
        [on_the_cpu] = answers(registry, registry.choose_backend("cpu"), tiny_model_path, [PROMPT])
        assert len(alone) == 16
        assert alone == among_others[4] == on_the_cpu

    def test_a_cache_beyond_its_memory_is_refused_with_the_numbers_and_the_device_stays_usable(
        self, registry: PluginRegistry, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, "4MiB")
        device = registry.choose_backend().load(BackendOptions())
        model = registry.open_model(tiny_model_path)
        layout = KVLayout(num_pages=10_000, page_size=16, num_layers=2, num_kv_heads=2, head_dim=16)
        with pytest.raises(OutOfMemoryError, match=r"KV cache needs .* bytes, but the simulated GPU has .* bytes free"):
            make_executor(device, model.spec, model.weights, layout)
        assert device.allocator.stats().used_bytes == 0
        small = KVLayout(num_pages=10, page_size=16, num_layers=2, num_kv_heads=2, head_dim=16)
        executor = make_executor(device, model.spec, model.weights, small)
        assert device.allocator.stats().used_bytes == 4 * model.spec.num_parameters + small.total_bytes
        executor.close()
        model.close()


def doctor(run_python: RunPython, memory: str | None = None) -> dict[str, dict[str, Any]]:
    """What ``layerscale doctor`` says of each backend."""
    result = run_python("-m", "layerscale_server", "doctor", "--json", memory=memory)
    assert result.returncode == 0, result.stderr
    return {verdict["name"]: verdict for verdict in json.loads(result.stdout)["backends"]}


def answers(registry: PluginRegistry, chosen: ChosenBackend, path: Path, prompts: list[str]) -> list[list[int]]:
    """Sixteen greedy tokens for each prompt, all prompts at once, on an engine assembled as the server does it."""
    model = registry.open_model(path)
    tokenizer = model.make_tokenizer()
    attention = model.spec.layers[0].attention
    page_size = chosen.backend.capabilities.page_sizes[0]
    num_pages = NUM_SEQUENCES * -(-CONTEXT_LEN // page_size)
    layout = KVLayout(num_pages, page_size, len(model.spec.layers), attention.num_kv_heads, attention.head_dim)
    executor = make_executor(chosen.load(BackendOptions()), model.spec, model.weights, layout)
    engine = Engine(
        executor,
        tokenizer,
        registry.make_kv_pool(layout),
        registry.make_scheduler_policy(),
        EngineLimits(CONTEXT_LEN, max_running=NUM_SEQUENCES, max_tokens_per_step=24),
    )
    sampling = SamplingParams(max_tokens=16, ignore_eos=True)
    sinks = [RecordingSink() for _ in prompts]
    for index, (prompt, sink) in enumerate(zip(prompts, sinks, strict=True)):
        engine.submit(Request(str(index), tuple(tokenizer.encode(prompt)), sampling), sink)
    while engine.step():
        pass
    engine.stop()
    executor.close()
    model.close()
    return [sink.token_ids for sink in sinks if sink.finished]
