"""Headers of weights that stay on the hub, and the plan that is made of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save

from layerscale_core.errors import ModelNotFoundError
from layerscale_core.formats.gguf.cursor import MAX_HEADER_BYTES
from layerscale_server.cli import cli
from layerscale_server.commands import plan as plan_command
from layerscale_server.hub import resolve_headers, resolve_model
from layerscale_server.hub.headers import take_header
from tests.support.hub_folders import tiny_repository
from tests.support.split_gguf import write_parts
from tests.support.stand_in_hub import NOBODY, StandInHub, StandInRepository

CHUNK_BYTES = 1 << 14
MANY_TENSORS = {f"model.layers.{number}.weight": np.zeros(8, np.float32) for number in range(2_000)}
DATA = bytes(1 << 20)


def chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]


class TestTakeHeader:
    def test_ends_soon_after_the_header_of_safetensors(self) -> None:
        weights = save(MANY_TENSORS)
        header_bytes = 8 + int.from_bytes(weights[:8], "little")
        assert header_bytes > 2 * CHUNK_BYTES
        taken = take_header(chunks(weights + DATA), "model.safetensors")
        assert (weights + DATA).startswith(taken)
        assert header_bytes <= len(taken) <= 2 * header_bytes + CHUNK_BYTES

    def test_ends_soon_after_the_header_of_gguf(self, tiny_model_path: Path) -> None:
        taken = take_header(chunks(tiny_model_path.read_bytes() + DATA), "tiny.gguf")
        assert len(taken) <= 1 << 17

    def test_a_short_file_is_taken_whole(self) -> None:
        assert take_header(chunks(save({})), "model.safetensors") == save({})

    def test_what_is_no_header_is_bounded(self) -> None:
        endless = iter(lambda: bytes(1 << 22), b"")
        assert len(take_header(endless, "model.gguf")) == MAX_HEADER_BYTES


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return tiny_repository(tmp_path_factory.mktemp("sharded"), num_shards=2)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, tiny_model_path: Path) -> dict[str, bytes]:
    folder = write_parts(tmp_path_factory.mktemp("split") / "parts", tiny_model_path)
    return {f"parts/{path.name}": path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def repositories(hub: StandInHub, sharded: dict[str, bytes], parts: dict[str, bytes], tiny_model_path: Path) -> None:
    gguf = {"m-Q8_0.gguf": tiny_model_path.read_bytes()}
    hub.repositories |= {
        "org/sharded": StandInRepository(sharded),
        "org/gguf": StandInRepository({**gguf, **parts}),
        "org/gated": StandInRepository(gguf, gated_token="hf_right"),
    }


class TestResolveHeaders:
    def test_of_a_folder_weights_and_tokenizer_stay_on_the_hub(self, hub: StandInHub, cache: Path) -> None:
        with resolve_headers("org/sharded", endpoint=hub.url, cache_dir=cache) as folder:
            names = {path.name for path in folder.iterdir()}
        assert "tokenizer.json" not in names
        assert {"config.json", "model-00001-of-00002.safetensors"} <= names
        assert not folder.exists()
        assert {path.suffix for path in cache.rglob("snapshots/*/*")} == {".json"}
        assert all(asked == f"bytes=0-{MAX_HEADER_BYTES - 1}" for asked in hub.ranges)

    @pytest.mark.parametrize("name", ["org/sharded", "org/gguf:m-Q8_0.gguf"])
    def test_of_a_fetched_model_nothing_is_asked_again(self, hub: StandInHub, cache: Path, name: str) -> None:
        fetched = resolve_model(name, endpoint=hub.url, cache_dir=cache).path
        hub.requests.clear()
        with resolve_headers(name, endpoint=hub.url, cache_dir=cache) as path:
            assert path == fetched
        assert hub.downloads() == []
        with resolve_headers(name, endpoint=NOBODY, cache_dir=cache) as path:
            assert path == fetched

    def test_a_local_path_is_itself(self, tiny_model_path: Path) -> None:
        with resolve_headers(str(tiny_model_path), endpoint=NOBODY) as path:
            assert path == tiny_model_path

    def test_the_token_opens_a_gated_repository_and_stays_with_the_hub(
        self, hub: StandInHub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with (
            pytest.raises(ModelNotFoundError, match="org/gated is gated"),
            resolve_headers("org/gated", endpoint=hub.url, cache_dir=cache),
        ):
            pass
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        with resolve_headers("org/gated", endpoint=hub.url, cache_dir=cache) as path:
            assert path.name == "m-Q8_0.gguf"
        assert hub.leaked_tokens == []


class TestPlan:
    @pytest.fixture(autouse=True)
    def address(self, hub: StandInHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        here = functools.partial(resolve_headers, endpoint=hub.url, cache_dir=cache)
        monkeypatch.setattr(plan_command, "resolve_headers", here)

    def plan(self, model: str) -> str:
        result = CliRunner().invoke(cli, ["plan", "--cpu-memory", "8GiB", "--model", model], catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    @pytest.mark.parametrize("name", ["org/sharded", "org/gguf:m-Q8_0.gguf", "org/gguf:parts"])
    def test_is_that_of_the_whole_model_and_fetches_no_weights(
        self, hub: StandInHub, cache: Path, tmp_path: Path, name: str
    ) -> None:
        planned = self.plan(name)
        assert not [path for path in cache.rglob("*") if path.suffix in {".gguf", ".safetensors"}]
        whole = resolve_model(name, endpoint=hub.url, cache_dir=tmp_path / "whole").path
        assert planned == self.plan(str(whole))
