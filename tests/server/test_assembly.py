"""From settings to an engine, with a backend of a known amount of memory."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerscale_backend_cpu.native_executor import native_isa
from layerscale_core.engine import Finished, Request, SamplingParams
from layerscale_core.errors import MaxSessionsError, OutOfMemoryError, PluginError, StartupError
from layerscale_core.memory_plan import KV_SHARE
from layerscale_core.models import QuantizedMatrix
from layerscale_core.plugins import PluginRegistry
from layerscale_core.reference import reference_memory_needs
from layerscale_core.sessions import NewSession
from layerscale_core.specs import (
    FREE_TIER,
    BackendOptions,
    KVType,
    StepLimits,
    hookimpl,
)
from layerscale_server.assembly import Assembler, Assembly
from layerscale_server.logging import configure_logging
from layerscale_server.metrics import Metrics
from layerscale_server.placement import Site
from layerscale_server.plan_report import plan_lines
from layerscale_server.planning import plan_start
from layerscale_server.settings import Settings
from tests.support.recording_sink import RecordingSink
from tests.support.small_backend import SmallBackend
from tests.support.tiny_folder import write_tiny_folder

_MIB = 1 << 20
BYTES_PER_TOKEN = 256  # of the tiny model: 2 layers, keys and values, 2 heads, 16 wide, 2 bytes


def assemble(backend: SmallBackend, model: Path, **settings: Any) -> Assembly:
    registry = PluginRegistry.discover()
    registry.register(backend, "small", "test 1.0")
    return Assembler(Settings(model=str(model), **settings), registry, FREE_TIER, Metrics()).assemble()


def taken_by(model: Path) -> int:
    """Bytes of the model's weights and workspace on this device."""
    file = PluginRegistry.discover().open_model(model)
    limits = StepLimits(max_tokens=100, max_logits=128, max_context_len=file.spec.max_context_len)
    needs = reference_memory_needs(file.spec, limits)
    file.close()
    return needs.weights_bytes + needs.workspace_bytes


def warnings(logs: io.StringIO) -> list[str]:
    events = map(json.loads, logs.getvalue().splitlines())
    return [event["message"] for event in events if event["level"] == "warning"]


def test_puts_together_what_was_asked_for(tiny_model_path: Path) -> None:
    backend = SmallBackend(64 * _MIB)
    assembly = assemble(backend, tiny_model_path, context=300, threads=3, model_name="my/model")
    try:
        assert backend.options == [BackendOptions(num_threads=3)]
        assert assembly.model.model_id == "my/model"
        assert assembly.model.plan.context_len == 300
        assert assembly.model.plan.layout.page_size == 32
        assert assembly.model.max_tokens_per_step == 100
        assert assembly.model.dialogue is not None
        assert backend.device.allocator.stats().used_bytes > 0
    finally:
        assembly.close()
    assert backend.device.allocator.stats().used_bytes == 0


@pytest.mark.parametrize(("prefix_cache", "expected"), [("on", [0, 64]), ("off", [0, 0])])
def test_the_prefix_cache_can_be_switched_off(tiny_model_path: Path, prefix_cache: str, expected: list[int]) -> None:
    assembly = assemble(SmallBackend(64 * _MIB), tiny_model_path, prefix_cache=prefix_cache)
    try:
        sinks = [RecordingSink() for _ in expected]
        for number, sink in enumerate(sinks):
            request = Request(str(number), (5,) * 70, SamplingParams(3, temperature=0.0, ignore_eos=True))
            assembly.engine.submit(request, sink)
            sink.wait()
        assert [sink.finished.usage.cached_tokens for sink in sinks] == expected
        assert sinks[0].token_ids == sinks[1].token_ids
    finally:
        assembly.close()


@pytest.mark.parametrize(("mib", "is_kept"), [(1, True), (0, False)])
def test_answers_are_kept_where_there_is_memory_for_them(tiny_model_path: Path, mib: int, is_kept: bool) -> None:
    assembly = assemble(SmallBackend(64 * _MIB), tiny_model_path, response_cache_mib=mib)

    async def num_cached() -> int:
        request = Request("r", (5,) * 7, SamplingParams(3, temperature=0.0, ignore_eos=True))
        async with assembly.model.engine.submit([request]) as generation:
            events = [event async for batch in generation.batches() for _, event in batch]
        end = events[-1]
        assert isinstance(end, Finished)
        return end.usage.cached_tokens

    try:
        assert [asyncio.run(num_cached()) for _ in range(2)] == [0, 7 if is_kept else 0]
    finally:
        assembly.close()


@pytest.mark.parametrize(("prompt_lookup", "is_used"), [("on", True), ("off", False)])
def test_prompt_lookup_can_be_switched_off(tiny_model_path: Path, prompt_lookup: str, *, is_used: bool) -> None:
    assembly = assemble(SmallBackend(64 * _MIB), tiny_model_path, prompt_lookup=prompt_lookup)
    try:
        sink = RecordingSink()
        sampling = SamplingParams(30, logit_bias={5: 100.0}, ignore_eos=True)
        assembly.engine.submit(Request("r", (5,), sampling), sink)
        sink.wait()
        assert sink.token_ids == [5] * 30
        assert (assembly.engine.stats().num_accepted_tokens > 0) is is_used
    finally:
        assembly.close()


@pytest.mark.parametrize("kv_type", KVType)
def test_the_cache_is_committed_in_the_precision_asked_for(tiny_model_path: Path, kv_type: KVType) -> None:
    backend = SmallBackend(64 * _MIB)
    backend.capabilities = replace(backend.capabilities, kv_types=tuple(KVType))
    assembly = assemble(backend, tiny_model_path, kv_cache_type=kv_type.value)
    layout = assembly.model.plan.layout
    assert layout.kv_type is kv_type
    page = assembly.executor.read_pages(np.array([0], np.int32))
    assert page.nbytes == layout.total_bytes // layout.num_pages
    assembly.close()


def test_weights_in_floats_are_quantised_when_asked_for(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "tiny")
    assembly = assemble(SmallBackend(64 * _MIB), folder, quantization="int4")
    try:
        layouts = {name: assembly.file.weights.matrix(f"layers.0.{name}", 0, 0) for name in ("gate", "down")}
        assert [layout.bits for layout in layouts.values() if isinstance(layout, QuantizedMatrix)] == [4, 6]
        sink = RecordingSink()
        assembly.engine.submit(Request("1", (5,) * 20, SamplingParams(3, temperature=0.0, ignore_eos=True)), sink)
        sink.wait()
        assert len(sink.token_ids) == 3
    finally:
        assembly.close()


def test_context_is_the_trained_one_by_default(tiny_model_path: Path, logs: io.StringIO) -> None:
    assembly = assemble(SmallBackend(64 * _MIB), tiny_model_path)
    assembly.close()
    assert assembly.model.plan.context_len == 512
    assert assembly.model.model_id == "tiny"
    assert warnings(logs) == ["this device is only a test"]


def test_context_that_does_not_fit_is_cut_and_said(tiny_model_path: Path, logs: io.StringIO) -> None:
    room = int(400 * BYTES_PER_TOKEN / KV_SHARE) + 1
    assembly = assemble(SmallBackend(taken_by(tiny_model_path) + room), tiny_model_path)
    assembly.close()
    assert assembly.model.plan.context_len == 256
    assert assembly.model.plan.burst_tokens == 400 - 256 - 2 * 32 - 16  # in pages of 32, two of them the slack
    assert "a context of 512 tokens does not fit in memory and is cut to 256" in warnings(logs)


def test_no_room_at_all_is_refused_with_numbers_and_leaves_nothing(tiny_model_path: Path) -> None:
    backend = SmallBackend(taken_by(tiny_model_path) + 1000)
    with pytest.raises(OutOfMemoryError, match=r"the model does not fit.*1 MiB more memory would make it fit"):
        assemble(backend, tiny_model_path)
    assert backend.device.allocator.stats().used_bytes == 0


def test_plugin_that_fails_late_leaves_nothing(tiny_model_path: Path) -> None:
    class Broken(SmallBackend):
        @hookimpl
        def layerscale_make_kv_pool(self, layout: object) -> None:
            raise RuntimeError("broken")

    backend = Broken(64 * _MIB)
    with pytest.raises(PluginError, match="broken"):
        assemble(backend, tiny_model_path)
    assert backend.device.allocator.stats().used_bytes == 0


def test_context_above_the_trained_one_is_refused(tiny_model_path: Path) -> None:
    with pytest.raises(StartupError, match="--context 513 is more than the 512 tokens"):
        assemble(SmallBackend(64 * _MIB), tiny_model_path, context=513)


def test_activations_that_a_backend_does_not_round_are_refused(tiny_model_path: Path) -> None:
    with pytest.raises(StartupError, match="--activation-type int8 is not known to the small backend; leave it out"):
        assemble(SmallBackend(64 * _MIB), tiny_model_path, activation_type="int8")


def test_the_embedded_backend_rounds_activations_as_asked(tiny_model_path: Path, logs: io.StringIO) -> None:
    settings = Settings(model=str(tiny_model_path), backend="cpu", activation_type="int8")
    assembly = Assembler(settings, PluginRegistry.discover(), FREE_TIER, Metrics()).assemble()
    assembly.close()
    assert native_isa() is None or "int8 activations" in logs.getvalue()


def test_sessions_are_reserved_and_no_request_gets_their_pages(tiny_model_path: Path) -> None:
    assembly = assemble(SmallBackend(64 * _MIB), tiny_model_path, context=256, sessions=1)
    try:
        layout = assembly.model.plan.layout
        assert (layout.num_session_pages, layout.num_pages) == (10, 10 + 2 * 8)
        assert assembly.engine.stats().pool.total_pages == 26
    finally:
        assembly.close()
    without = assemble(SmallBackend(64 * _MIB), tiny_model_path, context=256, sessions=0)
    without.close()
    assert (without.model.plan.layout.num_session_pages, without.model.plan.layout.num_pages) == (0, 2 * 8)


def test_sessions_beyond_the_tier_are_capped_with_one_warning(tiny_model_path: Path, logs: io.StringIO) -> None:
    assembly = assemble(SmallBackend(64 * _MIB), tiny_model_path, sessions=8)
    assembly.close()
    assert assembly.model.plan.request.num_sessions == 1
    capped = "--sessions 8 is more than the free tier's limit of 1, which holds instead"
    assert warnings(logs) == [capped, "this device is only a test"]


def test_the_start_prints_the_table_of_the_plan_command(tiny_model_path: Path) -> None:
    stream = io.StringIO()
    configure_logging("text", "info", stream)
    assemble(SmallBackend(64 * _MIB), tiny_model_path).close()
    below = [line.removeprefix("    | ") for line in stream.getvalue().splitlines() if line.startswith("    | ")]
    registry = PluginRegistry.discover()
    file = registry.open_model(tiny_model_path, metadata_only=True)
    backend = SmallBackend(64 * _MIB)
    site = Site(backend, backend.device)
    plan = plan_start(Settings(model=str(tiny_model_path)), FREE_TIER, file, site, registry)
    assert below == plan_lines(plan)
    file.close()


def test_sessions_share_the_engine_and_its_pool(tiny_model_path: Path) -> None:
    assembly = assemble(SmallBackend(64 * _MIB), tiny_model_path, context=256, sessions=1)
    try:
        sessions = assembly.model.sessions
        assert (sessions.limits.max_sessions, sessions.limits.max_context_len) == (1, 256)
        assert sessions.stream_types.keys() >= {"ohlcv", "iot", "spatial", "event", "vitals"}
        session = sessions.create(NewSession("ohlcv", prompt_ids=(5,) * 40)).result(30)
        session.mark_prefix().result(30)
        assert session.view.prefix_end == 40
        with pytest.raises(MaxSessionsError):
            sessions.create(NewSession("ohlcv")).result(30)
        entry = session.stream_type.validate({"o": 1, "h": 2, "l": 1, "c": 2, "v": 3})
        assert sessions.push(session, [entry]).num_pushed == 1
        sessions.delete(session.session_id).result(30)
    finally:
        assembly.close()
