"""Core's own defaults keep the contracts that plugins keep, taken from the registry as the server takes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerscale_core.conformance import (
    KVPoolContract,
    ModelFormatContract,
    SchedulerPolicyContract,
    StreamTypeContract,
)
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import KVLayout, KVPool, ModelFormat, SchedulerPolicy, StreamType
from tests.support.tiny_gguf import write_tiny_llama


@pytest.fixture(scope="module", params=["F32", "Q4_1", "Q6_K"])
def gguf_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    return write_tiny_llama(path, hidden=256, intermediate=256, encoding=request.param)


class TestPagedKVPool(KVPoolContract):
    def make_pool(self, layout: KVLayout) -> KVPool:
        return PluginRegistry.discover().make_kv_pool(layout)


class TestFairPolicy(SchedulerPolicyContract):
    def make_policy(self) -> SchedulerPolicy:
        return PluginRegistry.discover().make_scheduler_policy()


class TestGguf(ModelFormatContract):
    def make_format(self) -> ModelFormat:
        [gguf] = [found for found in PluginRegistry.discover().model_formats() if found.name == "gguf"]
        return gguf

    @pytest.fixture
    def model_path(self, gguf_path: Path) -> Path:
        return gguf_path


class TestOhlcv(StreamTypeContract):
    entries = (
        {"o": 10.0, "h": 12.5, "l": 9.75, "c": 11.0, "v": 1200.0, "sym": "ACME", "timestamp": 1704205800},
        {"o": 11.0, "h": 11.5, "l": 10.0, "c": 10.5, "v": 800},
        {"o": 10.5, "h": 14.0, "l": 10.5, "c": 13.25, "v": 0},
    )
    required = ("o", "h", "l", "c", "v")

    def make_stream_type(self) -> StreamType:
        return PluginRegistry.discover().stream_types()["ohlcv"]
