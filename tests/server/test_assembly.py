"""From settings to an engine, with a backend of a known amount of memory."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from layerscale_core.allocator import CountingAllocator
from layerscale_core.engine import Request, SamplingParams
from layerscale_core.errors import OutOfMemoryError, PluginError, StartupError
from layerscale_core.plugins import PluginRegistry
from layerscale_core.reference import ReferenceKernels
from layerscale_core.specs import FREE_TIER, Backend, BackendOptions, Capabilities, DeviceInfo, Probe, hookimpl
from layerscale_server.assembly import Assembler, Assembly
from layerscale_server.metrics import Metrics
from layerscale_server.settings import Settings
from tests.support.recording_sink import RecordingSink

_MIB = 1 << 20
BYTES_PER_TOKEN = 256  # of the tiny model: 2 layers, keys and values, 2 heads, 16 wide, 2 bytes


class SmallDevice:
    """Computes with the reference kernels, in as much memory as a test gives it."""

    notices = ("this device is only a test",)

    def __init__(self, free_bytes: int) -> None:
        self.allocator = CountingAllocator(1 << 30, "the test's memory")
        self.infos = (DeviceInfo("small", "a small device", 1 << 30, free_bytes, is_accelerator=True),)

    def make_executor(self, *_: object) -> None:
        return None

    def make_kernels(self) -> ReferenceKernels:
        return ReferenceKernels(self.allocator)


class SmallBackend:
    """A plugin and the backend it brings."""

    LAYERSCALE_SPEC_VERSION = 1
    name = "small"
    capabilities = Capabilities(page_sizes=(32, 16), max_tokens_per_step=100)

    def __init__(self, free_bytes: int) -> None:
        self.device = SmallDevice(free_bytes)
        self.options: list[BackendOptions] = []

    def probe(self) -> Probe:
        return Probe(1000, "always")

    def load(self, options: BackendOptions) -> SmallDevice:
        self.options.append(options)
        return self.device

    @hookimpl
    def layerscale_backends(self) -> Sequence[Backend]:
        return (self,)  # type: ignore[return-value]  # its device has no executor of its own


def assemble(backend: SmallBackend, model: Path, **settings: Any) -> Assembly:
    registry = PluginRegistry.discover()
    registry.register(backend, "small", "test 1.0")
    return Assembler(Settings(model=str(model), **settings), registry, FREE_TIER, Metrics()).assemble()


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
        assert assembly.model.chat_template is not None
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


def test_context_is_the_trained_one_by_default(tiny_model_path: Path, logs: io.StringIO) -> None:
    assembly = assemble(SmallBackend(64 * _MIB), tiny_model_path)
    assembly.close()
    assert assembly.model.plan.context_len == 512
    assert assembly.model.model_id == "tiny"
    assert warnings(logs) == ["this device is only a test"]


def test_context_that_does_not_fit_is_cut_and_said(tiny_model_path: Path, logs: io.StringIO) -> None:
    room = int(300 * BYTES_PER_TOKEN / 0.9) + 1
    assembly = assemble(SmallBackend(tiny_model_path.stat().st_size + room), tiny_model_path)
    assembly.close()
    assert assembly.model.plan.context_len == 256
    assert "a context of 512 tokens does not fit in memory and is cut to 256" in warnings(logs)


def test_no_room_at_all_is_refused_with_numbers_and_leaves_nothing(tiny_model_path: Path) -> None:
    backend = SmallBackend(tiny_model_path.stat().st_size + 1000)
    with pytest.raises(OutOfMemoryError, match="the KV cache does not fit"):
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
