"""Repositories of an ONNX graph: what is fetched of them, and what is opened."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.plugins import PluginRegistry
from layerscale_server.hub import resolve_headers, resolve_model
from tests.support.stand_in_hub import NOBODY, StandInHub, StandInRepository
from tests.support.tiny_checkpoints import save_tiny_checkpoint
from tests.support.tiny_onnx import save_onnx_folder

pytestmark = pytest.mark.xdist_group("transformers")

GRAPH, DATA = "onnx/model.onnx", "onnx/model.onnx_data"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """As hubs have them: texts above, graphs with the files of their weights in a folder."""
    folder = tmp_path_factory.mktemp("made")
    model = save_tiny_checkpoint(folder / "weights", "llama", vocab_size=330)
    made = save_onnx_folder(folder / "graph", folder / "weights", model, has_data_file=True)
    return {
        f"onnx/{path.name}" if path.name.startswith("model.onnx") else path.name: path.read_bytes()
        for path in made.iterdir()
    }


@pytest.fixture(autouse=True)
def repository(hub: StandInHub, files: dict[str, bytes]) -> StandInRepository:
    clutter = {"README.md": b"# A model", "onnx/model_q4.onnx": b"another", "onnx/model_q4.onnx_data": b"its weights"}
    hub.repositories["org/graph"] = StandInRepository({**files, **clutter})
    return hub.repositories["org/graph"]


def resolve(name: str, url: str, cache: Path) -> Path:
    return resolve_model(name, PluginRegistry.discover(), endpoint=url, cache_dir=cache).path


@pytest.mark.parametrize("name", ["org/graph", f"org/graph/{GRAPH}"])
def test_the_graph_is_fetched_with_what_it_needs_and_opened(
    hub: StandInHub, cache: Path, files: dict[str, bytes], name: str
) -> None:
    path = resolve(name, hub.url, cache)
    assert path.as_posix().endswith(GRAPH)
    assert sorted(hub.downloads()) == sorted(files)
    assert hub.downloads()[-1] == DATA
    with closing(PluginRegistry.discover().open_model(path)) as model:
        assert model.make_tokenizer().vocab_size <= model.spec.vocab_size
    assert resolve(name, NOBODY, cache) == path


def test_it_is_planned_before_its_weights_are_fetched(hub: StandInHub, cache: Path, files: dict[str, bytes]) -> None:
    with (
        resolve_headers("org/graph", endpoint=hub.url, cache_dir=cache) as path,
        closing(PluginRegistry.discover().open_model(path, metadata_only=True)) as model,
    ):
        assert model.size_bytes > len(files[GRAPH])
    assert DATA not in hub.downloads()


def test_what_cannot_be_served_is_refused_before_its_weights_are_fetched(
    hub: StandInHub, cache: Path, repository: StandInRepository
) -> None:
    config = json.loads(repository.files["config.json"])
    repository.files["config.json"] = json.dumps({**config, "model_type": "mamba"}).encode()
    with pytest.raises(UnsupportedModelError, match="mamba"):
        resolve("org/graph", hub.url, cache)
    assert DATA not in hub.downloads()
