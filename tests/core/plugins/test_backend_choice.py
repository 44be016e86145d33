"""Which backend serves, and that it is never one by accident."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest

from layerscale_core.errors import BackendError, OutOfMemoryError, PluginError
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import BackendOptions, Capabilities, Probe, hookimpl
from layerscale_core.version import SPEC_VERSION


class FakeBackend:
    """Scores what it is told; loading returns or raises what it is told."""

    def __init__(self, name: str, score: int | Exception, device: object = None, *, is_host: bool = False) -> None:
        self.name = name
        self.capabilities = Capabilities(is_host=is_host)
        self._score = score
        self._device = device
        self.num_probes = 0

    def probe(self) -> Probe:
        self.num_probes += 1
        if isinstance(self._score, Exception):
            raise self._score
        return Probe(self._score, f"{self.name} was looked at")

    def load(self, options: BackendOptions) -> object:
        if isinstance(self._device, Exception):
            raise self._device
        return self._device, options


def registry_of(*backends: object) -> PluginRegistry:
    """Each backend from a plugin of its own, named after it."""
    registry = PluginRegistry()
    for backend in backends:
        registry.register(plugin_bringing(backend), f"{backend.name}-plugin", "test 1.0")
    return registry


def plugin_bringing(backend: object) -> ModuleType:
    module = ModuleType("a_plugin")
    module.LAYERSCALE_SPEC_VERSION = SPEC_VERSION
    module.layerscale_backends = hookimpl(lambda: [backend])
    return module


def test_the_highest_score_wins_and_the_others_have_reasons() -> None:
    chosen = registry_of(FakeBackend("cpu", 10), FakeBackend("gpu", 100), FakeBackend("npu", 0)).choose_backend()
    assert chosen.backend.name == "gpu"
    assert str(chosen.plugin) == "gpu-plugin (test 1.0)"
    assert chosen.probe == Probe(100, "gpu was looked at")
    assert {rejected.name: rejected.reason for rejected in chosen.rejected} == {
        "cpu": "scores 10: cpu was looked at",
        "npu": "scores 0: npu was looked at",
    }


def test_a_tie_at_the_top_is_an_error_that_names_both() -> None:
    registry = registry_of(FakeBackend("cpu", 10), FakeBackend("red", 100), FakeBackend("green", 100))
    with pytest.raises(
        PluginError, match=r"'green' of plugin green-plugin .* and 'red' of plugin red-plugin .* --backend"
    ):
        registry.choose_backend()


def test_a_tie_below_the_top_is_none() -> None:
    registry = registry_of(FakeBackend("cpu", 10), FakeBackend("slow", 10), FakeBackend("gpu", 100))
    assert registry.choose_backend().backend.name == "gpu"


def test_a_name_wins_over_any_score_and_the_others_are_not_probed() -> None:
    gpu = FakeBackend("gpu", 100)
    chosen = registry_of(FakeBackend("cpu", 10), gpu).choose_backend("cpu")
    assert chosen.backend.name == "cpu"
    assert [(rejected.name, rejected.reason) for rejected in chosen.rejected] == [("gpu", "'cpu' was asked for")]
    assert gpu.num_probes == 0


def test_a_name_settles_a_tie() -> None:
    assert registry_of(FakeBackend("red", 100), FakeBackend("green", 100)).choose_backend("red").backend.name == "red"


def test_an_unknown_name_lists_the_choices_and_the_broken_plugins() -> None:
    registry = registry_of(FakeBackend("cpu", 10), FakeBackend("gpu", 100))
    registry.register(ModuleType("a_plugin"), "tpu-plugin", "test 1.0")
    with pytest.raises(
        PluginError,
        match=r"no backend named 'tpu'; there are: cpu, gpu; plugin tpu-plugin \(test 1.0\) is broken: declares no",
    ):
        registry.choose_backend("tpu")


def test_a_named_backend_that_cannot_serve_is_an_error_with_its_reason() -> None:
    registry = registry_of(FakeBackend("cpu", 10), FakeBackend("gpu", 0))
    with pytest.raises(BackendError, match=r"'gpu' of plugin gpu-plugin .* cannot serve here: gpu was looked at"):
        registry.choose_backend("gpu")


def test_a_probe_that_raises_breaks_its_plugin_and_nothing_else() -> None:
    registry = registry_of(FakeBackend("cpu", 10), FakeBackend("gpu", RuntimeError("driver too old")))
    chosen = registry.choose_backend()
    assert chosen.backend.name == "cpu"
    [rejected] = chosen.rejected
    assert rejected.reason == "scores 0: probe of backend 'gpu' failed: RuntimeError: driver too old"
    assert [plugin.name for plugin in registry.plugins() if plugin.cause] == ["gpu-plugin"]


def test_a_named_backend_whose_probe_raises_is_an_error_with_the_cause() -> None:
    registry = registry_of(FakeBackend("cpu", 10), FakeBackend("gpu", RuntimeError("driver too old")))
    with pytest.raises(BackendError, match="driver too old"):
        registry.choose_backend("gpu")


def test_a_probe_of_another_type_is_a_failed_probe() -> None:
    backend = SimpleNamespace(name="odd", probe=lambda: 100)
    with pytest.raises(BackendError, match="odd: probe of backend 'odd' failed: TypeError: returned int, not Probe"):
        registry_of(backend).choose_backend()


def test_when_none_can_serve_each_reason_is_given() -> None:
    registry = registry_of(FakeBackend("gpu", 0), FakeBackend("npu", 0))
    with pytest.raises(BackendError, match=r"no backend can serve .*npu: npu was looked at; gpu: gpu was looked at"):
        registry.choose_backend()


def test_without_any_backend_the_choice_fails() -> None:
    with pytest.raises(BackendError, match="no backend can serve on this machine"):
        PluginRegistry().choose_backend()


def test_loading_hands_over_the_options() -> None:
    options = BackendOptions(num_threads=3)
    assert registry_of(FakeBackend("cpu", 10, device="device")).choose_backend().load(options) == ("device", options)


def test_a_backend_that_cannot_load_is_an_error_with_name_and_cause_and_no_other_is_tried() -> None:
    registry = registry_of(FakeBackend("cpu", 10), FakeBackend("gpu", 100, device=ImportError("no libgpu.so")))
    with pytest.raises(BackendError, match=r"'gpu' of plugin gpu-plugin .* cannot load: ImportError: no libgpu.so"):
        registry.choose_backend().load(BackendOptions())


@pytest.mark.parametrize("error", [BackendError("the device is taken"), OutOfMemoryError("full")])
def test_a_backend_that_says_itself_why_it_cannot_load_is_quoted(error: Exception) -> None:
    chosen = registry_of(FakeBackend("gpu", 100, device=error)).choose_backend()
    with pytest.raises(type(error), match=str(error)):
        chosen.load(BackendOptions())


def test_layers_are_offloaded_to_the_best_of_those_that_compute_on_the_host() -> None:
    hosts = [FakeBackend("cpu", 10, is_host=True), FakeBackend("fast-cpu", 20, is_host=True)]
    assert registry_of(FakeBackend("gpu", 100), *hosts).choose_host_backend().backend.name == "fast-cpu"
    with pytest.raises(BackendError, match="no backend can serve on this machine; cpu: cpu was looked at"):
        registry_of(FakeBackend("gpu", 100), FakeBackend("cpu", 0, is_host=True)).choose_host_backend()
