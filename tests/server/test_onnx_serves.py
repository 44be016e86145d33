"""A folder with an ONNX graph serves as any other model does: no flag, a plan, requests, sessions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from layerscale_core.engine import Request, SamplingParams
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import FREE_TIER
from layerscale_server.assembly import Assembler
from layerscale_server.commands.plan import plan
from layerscale_server.metrics import Metrics
from layerscale_server.settings import Settings
from tests.support.recording_sink import RecordingSink
from tests.support.tiny_folder import byte_level
from tests.support.tiny_onnx import save_pair

pytestmark = pytest.mark.xdist_group("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("onnx") / "pair"
    return save_pair(made, "llama", vocab_size=byte_level().get_vocab_size(), num_hidden_layers=1)[1]


def test_a_graph_is_served_by_the_backend_of_its_own(folder: Path) -> None:
    settings = Settings(model=str(folder), context=256, sessions=1, threads=2)
    assembly = Assembler(settings, PluginRegistry.discover(), FREE_TIER, Metrics()).assemble()
    try:
        assert assembly.model.devices[0].description.startswith("onnxruntime")
        assert assembly.model.chat_template is not None
        sinks = [RecordingSink() for _ in range(2)]
        for number, sink in enumerate(sinks):
            request = Request(str(number), (5,) * 70, SamplingParams(3, temperature=0.0, ignore_eos=True))
            assembly.engine.submit(request, sink)
            sink.wait()
        assert sinks[0].token_ids == sinks[1].token_ids
        assert [sink.finished.usage.cached_tokens for sink in sinks] == [0, 64]
    finally:
        assembly.close()


def test_a_graph_is_planned_without_running_it(folder: Path) -> None:
    result = CliRunner().invoke(plan, ["--model", str(folder), "--context", "256", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["backend"] == "onnxruntime"
