"""``--cpu-offload-gb``, from the flag to the answer: a device too small for the model, and the CPU beside it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from layerscale_backend_cpu.native_executor import ISA_VARIABLE, native_isa
from layerscale_core.engine import Request, SamplingParams
from layerscale_core.errors import BackendError, OutOfMemoryError, PluginError, StartupError
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import FREE_TIER, Capabilities, KVType, OffloadPlan, StepLimits, hookimpl
from layerscale_server.assembly import Assembler, Assembly
from layerscale_server.metrics import Metrics
from layerscale_server.placement import Site
from layerscale_server.plan_report import plan_fields, plan_lines
from layerscale_server.planning import StartPlan, plan_start
from layerscale_server.settings import Settings
from tests.support.recording_sink import RecordingSink
from tests.support.small_backend import SmallBackend, SmallDevice
from tests.support.tiny_gguf import write_tiny_llama

GIB = 1 << 30
NUM_LAYERS = 8
PLENTY = 64 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "eight-layers.gguf", layers=NUM_LAYERS)


@pytest.fixture(scope="module")
def too_little(model: Path) -> int:
    """Memory for the workspace and somewhat more than half the weights."""
    with_room = plan_of(model, SmallBackend(PLENTY)).placement.share
    return with_room.workspace_bytes + with_room.weights_bytes * 6 // 10


def layers_gib(model: Path, num_layers: float) -> float:
    """The budget for so many layers."""
    return num_layers * (model.stat().st_size // NUM_LAYERS) / GIB


def registry_with(*plugins: SmallBackend) -> PluginRegistry:
    registry = PluginRegistry.discover()
    for index, plugin in enumerate(plugins):
        registry.register(plugin, f"small-{index}", "test 1.0")
    return registry


def plan_of(model: Path, backend: SmallBackend, host_bytes: int | None = None, **settings: Any) -> StartPlan:
    registry = registry_with(backend)
    file = registry.open_model(model)
    try:
        site = Site(backend, backend.device)
        wanted = Settings(model=str(model), **settings)
        return plan_start(wanted, FREE_TIER, file, site, registry, assumed_host_bytes=host_bytes)
    finally:
        file.close()


def host_layers(plan: StartPlan) -> tuple[int, ...]:
    return plan.placement.host.layers if plan.placement.host else ()


def assemble(backend: SmallBackend, model: Path, **settings: Any) -> Assembly:
    return Assembler(Settings(model=str(model), **settings), registry_with(backend), FREE_TIER, Metrics()).assemble()


def tokens_of(backend: SmallBackend, model: Path, **settings: Any) -> list[list[int]]:
    """Answers to a few prompts at once."""
    assembly = assemble(backend, model, **settings)
    try:
        sinks = [RecordingSink() for _ in range(4)]
        for index, sink in enumerate(sinks):
            prompt = tuple(range(index, 150 + 20 * index))
            sampling = SamplingParams(12, temperature=0.0, ignore_eos=True)
            assembly.engine.submit(Request(str(index), prompt, sampling), sink)
        for sink in sinks:
            sink.wait()
        return [sink.token_ids for sink in sinks]
    finally:
        assembly.close()


def logged(logs: io.StringIO, level: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in logs.getvalue().splitlines()]
    return [event for event in events if event["level"] == level]


@pytest.mark.parametrize("num_layers", [1, 4, NUM_LAYERS])
def test_answers_are_those_of_the_device_alone(model: Path, num_layers: int) -> None:
    offloaded = tokens_of(SmallBackend(PLENTY), model, cpu_offload_gb=layers_gib(model, num_layers))
    assert offloaded == tokens_of(SmallBackend(PLENTY), model)
    assert len(set(map(tuple, offloaded))) == 4


def test_a_model_too_large_for_the_device_is_served(model: Path, too_little: int) -> None:
    with pytest.raises(OutOfMemoryError, match="the model does not fit"):
        assemble(SmallBackend(too_little), model, context=256)
    backend = SmallBackend(too_little)
    offloaded = tokens_of(backend, model, context=256, cpu_offload_gb=layers_gib(model, 5))
    assert offloaded == tokens_of(SmallBackend(PLENTY), model, context=256)
    assert backend.device.allocator.stats().used_bytes == 0


@pytest.mark.parametrize(
    ("num_layers", "num_on_host"), [(0.01, 1), (1, 1), (1.01, 2), (7.9, 8), (8, 8), (1000, 8)], ids=str
)
def test_the_budget_becomes_layers_rounded_up(model: Path, num_layers: float, num_on_host: int) -> None:
    plan = plan_of(model, SmallBackend(PLENTY), cpu_offload_gb=layers_gib(model, num_layers))
    assert host_layers(plan) == tuple(range(num_on_host))


def test_the_plan_counts_what_each_side_will_hold(model: Path) -> None:
    registry = registry_with(backend := SmallBackend(PLENTY))
    budget = layers_gib(model, 3)
    plan = plan_of(model, backend, cpu_offload_gb=budget)
    fields = plan_fields(plan)
    offload = fields["cpu_offload"]
    assert isinstance(offload, dict)
    assembler = Assembler(Settings(model=str(model), cpu_offload_gb=budget), registry, FREE_TIER, Metrics())
    assembly = assembler.assemble()
    try:
        used = backend.device.allocator.stats().used_bytes
        kv_bytes = assembly.model.plan.layout.total_bytes
        assert used == fields["weights_bytes"] + kv_bytes * 5 // 8  # type: ignore[operator]
        assert fields["kv_cache_bytes"] == kv_bytes
        assert (offload["layers"], offload["backend"]) == ([0, 1, 2], "cpu")
        assert offload["kv_cache_bytes"] == kv_bytes * 3 // 8
        whole = plan_of(model, SmallBackend(PLENTY))
        both = fields["weights_bytes"] + offload["weights_bytes"]  # type: ignore[operator]
        assert both == whole.placement.share.weights_bytes
        assert plan_fields(whole)["cpu_offload"] is None
    finally:
        assembly.close()


@pytest.mark.skipif(native_isa() is None, reason="the native kernels are not compiled")
def test_the_plan_counts_the_layout_of_what_computes_the_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny_llama(tmp_path / "quantised.gguf", encoding="Q4_0")
    packed = plan_of(model, SmallBackend(PLENTY), cpu_offload_gb=1).placement
    monkeypatch.setenv(ISA_VARIABLE, "numpy")
    in_floats = plan_of(model, SmallBackend(PLENTY), cpu_offload_gb=1).placement
    assert packed.host is not None
    assert in_floats.host is not None
    assert packed.host.share.weights_bytes < in_floats.host.share.weights_bytes / 5
    assert packed.share == in_floats.share


def test_the_start_says_which_layers_went_where_and_how_many_bytes(model: Path, logs: io.StringIO) -> None:
    assemble(SmallBackend(PLENTY), model, cpu_offload_gb=layers_gib(model, 3)).close()
    [said] = [event["message"] for event in logged(logs, "warning") if "layers" in event["message"]]
    assert re.fullmatch(
        r"3 of 8 layers \(0-2\) stay in CPU memory, with 0\.\d MiB of weights, and 5 are on the device, with 0\.\d MiB"
        r", embedding and output head included; the CPU sets the pace of every answer",
        said,
    )
    [plan] = [event for event in logged(logs, "info") if event["message"] == "memory plan"]
    assert plan["cpu_offload"]["layers"] == [0, 1, 2]


def test_people_see_both_memories(model: Path) -> None:
    plan = plan_of(model, SmallBackend(PLENTY), host_bytes=32 << 20, cpu_offload_gb=layers_gib(model, 3))
    rows = {line[:15].strip(): line for line in plan_lines(plan)}
    assert "5 layers, embedding and output head, 32.00 bits a parameter" in rows["weights"]
    assert "3 of 8" in rows["CPU layers"]
    assert "0-2, computed there by the kernels of the cpu backend" in rows["CPU layers"]
    assert "32.0 MiB" in rows["CPU available"]
    assert "assumed" in rows["CPU available"]
    assert rows.keys() >= {"CPU weights", "CPU workspace", "CPU headroom", "CPU KV budget"}
    assert rows["KV cache"].endswith("of it in CPU memory")


def test_a_refusal_names_the_least_budget_that_fits(model: Path, tmp_path: Path) -> None:
    larger = write_tiny_llama(tmp_path / "larger.gguf", layers=6, hidden=256, intermediate=1024)
    share = plan_of(larger, SmallBackend(PLENTY)).placement.share
    free_bytes = share.workspace_bytes + share.weights_bytes // 2
    with pytest.raises(OutOfMemoryError) as refusal:
        plan_of(larger, SmallBackend(free_bytes))
    found = re.search(r"; --cpu-offload-gb (0\.\d{1,3}) or \d+ MiB more memory", str(refusal.value))
    assert found is not None
    budget = float(found[1])
    plan = plan_of(larger, SmallBackend(free_bytes), cpu_offload_gb=budget)
    assert 3 <= len(host_layers(plan)) < 6
    with pytest.raises(OutOfMemoryError, match=f"--cpu-offload-gb {found[1]} or"):
        plan_of(larger, SmallBackend(free_bytes), cpu_offload_gb=budget - layers_gib(larger, 8) / 6)


def test_a_host_too_small_is_refused_with_the_lesser_budget(model: Path) -> None:
    with pytest.raises(OutOfMemoryError, match=r"available CPU memory the weights take.*; --cpu-offload-gb 0 or"):
        plan_of(model, SmallBackend(PLENTY), host_bytes=1 << 20, cpu_offload_gb=1)


def test_where_neither_side_is_large_enough_no_budget_is_named(model: Path, too_little: int) -> None:
    with pytest.raises(OutOfMemoryError) as refusal:
        plan_of(model, SmallBackend(too_little), host_bytes=1000)
    assert "--cpu-offload-gb" not in str(refusal.value)


def test_without_kernels_for_the_host_only_those_who_ask_are_refused(
    model: Path, too_little: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "nonsense")
    plan_of(model, SmallBackend(PLENTY))
    with pytest.raises(OutOfMemoryError, match="MiB more memory"):
        plan_of(model, SmallBackend(too_little))
    with pytest.raises(BackendError, match=f"{ISA_VARIABLE}=nonsense"):
        plan_of(model, SmallBackend(PLENTY), cpu_offload_gb=1)


def test_pages_are_of_a_size_that_both_sides_take(model: Path) -> None:
    class OtherPages(SmallBackend):
        capabilities = Capabilities(page_sizes=(32, 64))

    backend = SmallBackend(PLENTY)
    assert plan_of(model, backend).memory.layout.page_size == 32
    assert plan_of(model, backend, cpu_offload_gb=1).memory.layout.page_size == 16
    with pytest.raises(BackendError, match=r"no KV page size is known to both small \(32, 64\) and cpu \(16,\)"):
        plan_of(model, OtherPages(PLENTY), cpu_offload_gb=1)


@pytest.mark.parametrize("kv_type", [KVType.INT8, KVType.INT4])
def test_the_cache_has_one_precision_on_both_sides(
    model: Path, kv_type: KVType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "numpy")  # to the bit: rounded in another order, some elements get another code

    class Quantises(SmallBackend):
        capabilities = Capabilities(kv_types=tuple(KVType))

    offloaded = tokens_of(Quantises(PLENTY), model, cpu_offload_gb=layers_gib(model, 4), kv_cache_type=kv_type.value)
    assert offloaded == tokens_of(Quantises(PLENTY), model, kv_cache_type=kv_type.value)
    with pytest.raises(StartupError, match=f"{kv_type} is not known to the small and cpu backend; choose one of fp16"):
        plan_of(model, SmallBackend(PLENTY), cpu_offload_gb=1, kv_cache_type=kv_type.value)


def test_layers_are_chosen_by_the_offload_planner(model: Path) -> None:
    class Chooses(SmallBackend):
        layers: tuple[int, ...] = (2, 5)

        @hookimpl
        def layerscale_make_offload_planner(self) -> Chooses:
            return self

        def plan(self, layer_bytes: list[int], budget_bytes: int) -> OffloadPlan:
            assert layer_bytes == [model.stat().st_size // NUM_LAYERS] * NUM_LAYERS
            assert budget_bytes == GIB
            return OffloadPlan(self.layers)

    backend = Chooses(PLENTY)
    assert host_layers(plan_of(model, backend, cpu_offload_gb=1)) == (2, 5)
    backend.layers = ()
    assert plan_of(model, backend, cpu_offload_gb=1).placement.host is None
    for backend.layers in ((8,), (-1,), (3, 2), (1, 1)):
        with pytest.raises(PluginError, match="the offload planner chose the layers"):
            plan_of(model, backend, cpu_offload_gb=1)


def test_a_device_with_an_executor_of_its_own_is_asked_for_its_kernels(model: Path) -> None:
    class OwnExecutor(SmallDevice):
        def make_executor(self, *_: object) -> None:
            raise AssertionError("its executor computes all layers")

        def memory_needs(self, spec: Any, weights: Any, limits: StepLimits) -> Any:
            needs = super().memory_needs(spec, weights, limits)
            return type(needs)(dict.fromkeys(needs.weights, 1), 1)

    backend = SmallBackend(PLENTY)
    backend.device = OwnExecutor(PLENTY)
    assert plan_of(model, backend).placement.share.workspace_bytes == 1
    assembly = assemble(backend, model, cpu_offload_gb=layers_gib(model, 4))
    assert backend.device.allocator.stats().used_bytes > assembly.model.plan.layout.total_bytes // 2
    assembly.close()


def test_on_the_cpu_the_flag_changes_nothing_and_says_so_once(model: Path, logs: io.StringIO) -> None:
    settings = Settings(model=str(model), backend="cpu", cpu_offload_gb=1.0, context=256)
    Assembler(settings, PluginRegistry.discover(), FREE_TIER, Metrics()).assemble().close()
    said = "--cpu-offload-gb changes nothing on the cpu backend: all weights are in CPU memory anyway"
    assert [event["message"] for event in logged(logs, "warning")].count(said) == 1
    [plan] = [event for event in logged(logs, "info") if event["message"] == "memory plan"]
    assert plan["cpu_offload"] is None
