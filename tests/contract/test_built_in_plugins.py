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
from tests.support.packed_folder import pack_awq, write_twins
from tests.support.tiny_folder import write_tiny_folder
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


class TestSafetensors(ModelFormatContract):
    def make_format(self) -> ModelFormat:
        [safetensors] = [found for found in PluginRegistry.discover().model_formats() if found.name == "safetensors"]
        return safetensors

    @pytest.fixture
    def model_path(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return write_tiny_folder(tmp_path_factory.mktemp("folders") / "tiny.model")


class TestPackedSafetensors(TestSafetensors):
    @pytest.fixture
    def model_path(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder, config = tmp_path_factory.mktemp("folders"), {"quant_method": "awq", "bits": 4, "group_size": 32}
        return write_twins(folder, pack_awq(32), config, is_packed=lambda weight: "_proj" in weight).packed


class TestOhlcv(StreamTypeContract):
    entries = (
        {"o": 10.0, "h": 12.5, "l": 9.75, "c": 11.0, "v": 1200.0, "sym": "ACME", "timestamp": 1704205800},
        {"o": 11.0, "h": 11.5, "l": 10.0, "c": 10.5, "v": 800},
        {"o": 10.5, "h": 14.0, "l": 10.5, "c": 13.25, "v": 0},
    )
    required = ("o", "h", "l", "c", "v")

    def make_stream_type(self) -> StreamType:
        return PluginRegistry.discover().stream_types()["ohlcv"]


class TestIot(StreamTypeContract):
    entries = (
        {"sid": "boiler-3", "val": 91.5, "lo": 20.0, "hi": 80.0, "timestamp": 1704205800},
        {"sid": "boiler-4", "val": 20, "lo": 20, "hi": 80},
        {"sid": "", "val": -1.0, "lo": -5.0, "hi": -0.5},
    )
    required = ("sid", "val", "lo", "hi")

    def make_stream_type(self) -> StreamType:
        return PluginRegistry.discover().stream_types()["iot"]


class TestSpatial(StreamTypeContract):
    entries = (
        {"x": 12.5, "y": -3.0, "z": 0.4, "spd": 5.25, "hdg": 270.0, "timestamp": 1704205800},
        {"x": 13, "y": -3, "z": 0, "spd": 5, "hdg": 0, "timestamp": 1704205801},
        {"x": 13.0, "y": -2.0, "z": 0.0, "spd": 0.0, "hdg": 359.5},
    )
    required = ("x", "y", "z", "spd", "hdg")

    def make_stream_type(self) -> StreamType:
        return PluginRegistry.discover().stream_types()["spatial"]


class TestEvent(StreamTypeContract):
    entries = (
        {"src": "api-gateway", "sev": 4, "cat": "timeout", "cnt": 12, "timestamp": 1704205800},
        {"src": "api-gateway", "sev": 0, "cat": "restart", "cnt": 0},
        {"src": "", "sev": 5, "cat": "", "cnt": 1},
    )
    required = ("src", "sev", "cat", "cnt")

    def make_stream_type(self) -> StreamType:
        return PluginRegistry.discover().stream_types()["event"]


class TestVitals(StreamTypeContract):
    entries = (
        {"hr": 72.0, "bp_s": 120.0, "bp_d": 80.0, "spo2": 98.0, "temp": 36.8, "timestamp": 1704205800},
        {"hr": 130, "bp_s": 119.5, "bp_d": 80, "spo2": 88, "temp": 39},
        {"hr": 50.0, "bp_s": 90.0, "bp_d": 60.0, "spo2": 95.0, "temp": 35.5},
    )
    required = ("hr", "bp_s", "bp_d", "spo2", "temp")

    def make_stream_type(self) -> StreamType:
        return PluginRegistry.discover().stream_types()["vitals"]
