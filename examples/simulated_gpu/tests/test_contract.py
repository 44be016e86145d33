"""The simulated GPU keeps LayerScale's backend contract."""

from __future__ import annotations

import pytest
from layerscale_simulated_gpu import plugin
from layerscale_simulated_gpu.backend import MEMORY_VARIABLE, SimulatedGpu

from layerscale_core.conformance import BackendContract, KernelsContract
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import BackendOptions


@pytest.fixture(autouse=True)
def device_of_64_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, "64MiB")


class TestSimulatedGpu(BackendContract):
    """Everything that a backend promises."""

    plugin_module = "layerscale_simulated_gpu.plugin"
    max_relative_error = 1e-4  # float32 as the reference, in another order: stored halves differ here and there


class TestSimulatedKernels(KernelsContract):
    """Everything that its kernels promise, one by one."""

    plugin_module = "layerscale_simulated_gpu.plugin"
    max_relative_error = 1e-4


def test_core_accepts_the_plugin() -> None:
    assert PluginRegistry().register(plugin, "simulated-gpu", "test").cause is None


def test_without_its_variable_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MEMORY_VARIABLE)
    probe = SimulatedGpu().probe()
    assert probe.score == 0
    assert probe.reason == f"no simulated GPU: {MEMORY_VARIABLE} is not set"


@pytest.mark.parametrize("text", ["", "2", "2GB", "-1GiB", "x MiB", "9999999MiB"])
def test_nonsense_for_its_memory_is_no_device(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, text)
    probe = SimulatedGpu().probe()
    assert probe.score == 0
    assert "must be a size" in probe.reason


@pytest.mark.parametrize(("text", "num_bytes"), [("512 KiB", 512 * 2**10), ("3MiB", 3 * 2**20), (" 2GiB ", 2 * 2**30)])
def test_its_memory_is_what_the_variable_says(monkeypatch: pytest.MonkeyPatch, text: str, num_bytes: int) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, text)
    plugins = PluginRegistry()
    plugins.register(plugin, "simulated-gpu", "test")
    chosen = plugins.choose_backend()
    assert chosen.probe.score == 100
    [info] = chosen.load(BackendOptions()).infos
    assert info.total_memory_bytes == info.free_memory_bytes == num_bytes
    assert info.is_accelerator
