"""Repositories of safetensors: what is fetched of them, and what is opened."""

from __future__ import annotations

import io
import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE

from layerscale_core.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError
from layerscale_core.plugins import PluginRegistry
from layerscale_server.hub import resolve_model
from tests.support.hub_folders import CLUTTER, tiny_repository
from tests.support.stand_in_hub import COMMIT, NOBODY, StandInHub, StandInRepository

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
NEXT_COMMIT = "a" * 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return tiny_repository(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return tiny_repository(tmp_path_factory.mktemp("sharded"), num_shards=2)


@pytest.fixture(autouse=True)
def repositories(hub: StandInHub, whole: dict[str, bytes], sharded: dict[str, bytes]) -> None:
    hub.repositories |= {
        "org/whole": StandInRepository(whole),
        "org/sharded": StandInRepository(dict(sharded)),
        "org/both": StandInRepository({**whole, "m-Q4_K_M.gguf": b"GGUF"}),
        "org/gated": StandInRepository(sharded, gated_token="hf_right"),
    }


def resolve(name: str, hub: StandInHub | str, cache: Path) -> Path:
    return resolve_model(name, endpoint=hub if isinstance(hub, str) else hub.url, cache_dir=cache).path


def num_parameters(folder: Path) -> int:
    with closing(PluginRegistry.discover().open_model(folder)) as file:
        assert file.make_tokenizer().vocab_size == file.spec.vocab_size
        assert file.chat_template is not None
        return file.spec.num_parameters


@pytest.mark.parametrize("name", ["org/whole", "org/sharded"])
def test_fetches_what_the_model_needs_and_nothing_else_and_opens_the_folder(
    hub: StandInHub, cache: Path, name: str
) -> None:
    folder = resolve(name, hub, cache)
    needed = hub.repositories[name].files.keys() - CLUTTER.keys()
    assert {path.name for path in folder.iterdir()} == needed
    assert sorted(hub.downloads()) == sorted(needed)
    assert num_parameters(folder) > 0


def test_the_log_says_what_is_downloaded_and_shows_no_address(hub: StandInHub, cache: Path, logs: io.StringIO) -> None:
    resolve("org/sharded", hub, cache)
    messages = [json.loads(line)["message"] for line in logs.getvalue().splitlines()]
    num_files = len(hub.downloads()) - 1  # the index comes first, and is small
    assert len(messages) == 1
    assert messages[0].startswith(f"downloading {num_files} files of org/sharded (")


def test_weights_come_last(hub: StandInHub, cache: Path) -> None:
    resolve("org/sharded", hub, cache)
    assert tuple(hub.downloads()[-2:]) == SHARDS


def test_the_second_time_only_the_list_is_asked_for(hub: StandInHub, cache: Path) -> None:
    first = resolve("org/sharded", hub, cache)
    hub.requests.clear()
    assert resolve("org/sharded", hub, cache) == first
    assert hub.requests == [("GET", "/api/models/org/sharded")]


def test_a_gguf_file_fetched_before_does_not_stand_in_for_the_folder(hub: StandInHub, cache: Path) -> None:
    file = resolve("org/both:Q4_K_M", hub, cache)
    folder = resolve("org/both", hub, cache)
    assert file.parent == folder
    assert num_parameters(folder) > 0


def test_an_interrupted_download_goes_on_with_the_file_it_stopped_at(hub: StandInHub, cache: Path) -> None:
    hub.repositories["org/sharded"].lost = frozenset({SHARDS[1]})
    with pytest.raises(ModelNotFoundError, match="lists a file of org/sharded that it does not have"):
        resolve("org/sharded", hub, cache)
    hub.repositories["org/sharded"].lost = frozenset()
    hub.requests.clear()
    assert num_parameters(resolve("org/sharded", hub, cache)) > 0
    assert hub.downloads() == [SHARDS[1]]


def test_a_cut_connection_is_resumed_where_it_broke(hub: StandInHub, cache: Path) -> None:
    content = os.urandom(DOWNLOAD_CHUNK_SIZE + 2_000)
    hub.repositories["org/sharded"].files[SHARDS[0]] = content
    hub.cut_after = DOWNLOAD_CHUNK_SIZE + 1_000
    assert (resolve("org/sharded", hub, cache) / SHARDS[0]).read_bytes() == content
    assert hub.ranges == [None, f"bytes={DOWNLOAD_CHUNK_SIZE}-", None]


@pytest.mark.parametrize("name", ["config.json", INDEX, SHARDS[1]])
def test_a_damaged_file_is_refused_and_not_kept(hub: StandInHub, cache: Path, name: str) -> None:
    hub.corrupt = frozenset({name})
    with pytest.raises(ModelNotFoundError, match=f"{name} arrived damaged .*; try again"):
        resolve("org/sharded", hub, cache)
    hub.corrupt = frozenset()
    assert num_parameters(resolve("org/sharded", hub, cache)) > 0


def test_all_files_together_must_fit_the_disk(
    hub: StandInHub, cache: Path, sharded: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(len(content) for name, content in sharded.items() if name not in {*CLUTTER, INDEX})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(ModelNotFoundError, match="no room for org/sharded"):
        resolve("org/sharded", hub, cache)
    assert hub.downloads() == [INDEX]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    assert resolve("org/sharded", hub, cache).is_dir()


@pytest.mark.parametrize(
    ("token", "words"),
    [(None, "org/gated is gated: accept its conditions there and set HF_TOKEN"), ("hf_wrong", "ask for access there")],
)
def test_a_gated_repository_is_refused_with_the_remedy(
    hub: StandInHub, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, words: str
) -> None:
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ModelNotFoundError, match=words):
        resolve("org/gated", hub, cache)
    assert hub.downloads() == []


def test_a_token_opens_a_gated_repository(hub: StandInHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert num_parameters(resolve("org/gated", hub, cache)) > 0
    assert hub.leaked_tokens == []


def test_a_hostile_index_is_refused_before_weights_are_fetched(hub: StandInHub, cache: Path) -> None:
    hub.repositories["org/sharded"].files[INDEX] = b'{"weight_map": {"a": "../../x.safetensors"}}'
    with pytest.raises(ModelFileError, match="not that of a"):
        resolve("org/sharded", hub, cache)
    assert hub.downloads() == [INDEX]


class TestCheckedBeforeTheDownload:
    def test_a_model_that_cannot_be_served_is_refused_before_its_weights_are_fetched(
        self, hub: StandInHub, cache: Path
    ) -> None:
        hub.repositories["org/sharded"].files["config.json"] = b'{"model_type": "mamba"}'
        with pytest.raises(UnsupportedModelError, match="mamba"):
            resolve_model("org/sharded", PluginRegistry.discover(), endpoint=hub.url, cache_dir=cache)
        assert not [path for path in cache.rglob("*") if path.suffix == ".safetensors"]

    def test_one_that_can_be_served_is_fetched_and_not_checked_again(self, hub: StandInHub, cache: Path) -> None:
        registry = PluginRegistry.discover()
        folder = resolve_model("org/sharded", registry, endpoint=hub.url, cache_dir=cache).path
        assert num_parameters(folder) > 0
        hub.requests.clear()
        assert resolve_model("org/sharded", registry, endpoint=hub.url, cache_dir=cache).path == folder
        assert hub.requests == [("GET", "/api/models/org/sharded")]


class TestWithoutTheHub:
    @pytest.mark.parametrize("name", ["org/sharded", f"org/sharded@{COMMIT}", "org/sharded@main"])
    def test_what_was_fetched_before_is_opened(self, hub: StandInHub, cache: Path, name: str) -> None:
        fetched = resolve("org/sharded", hub, cache)
        assert resolve(name, NOBODY, cache) == fetched

    def test_offline_the_hub_is_not_asked(self, hub: StandInHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched = resolve("org/sharded", hub, cache)
        hub.requests.clear()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert resolve("org/sharded", hub, cache) == fetched
        with pytest.raises(ModelNotFoundError, match="org/whole is not in the cache, and HF_HUB_OFFLINE forbids"):
            resolve("org/whole", hub, cache)
        assert hub.requests == []

    def test_what_was_fetched_in_part_is_not(self, hub: StandInHub, cache: Path) -> None:
        folder = resolve("org/sharded", hub, cache)
        (folder / SHARDS[1]).unlink()
        with pytest.raises(ModelNotFoundError, match=f"refused.*; in the cache, org/sharded lacks {SHARDS[1]}"):
            resolve("org/sharded", NOBODY, cache)

    def test_an_interrupted_update_leaves_what_was_served_before(
        self, hub: StandInHub, cache: Path, whole: dict[str, bytes]
    ) -> None:
        before = resolve("org/whole", hub, cache)
        hub.repositories["org/whole"] = StandInRepository(
            {**whole, "config.json": b"{}", "model.safetensors": b"new"},
            commit=NEXT_COMMIT,
            lost=frozenset({"model.safetensors"}),
        )
        with pytest.raises(ModelNotFoundError):
            resolve("org/whole", hub, cache)
        assert resolve("org/whole", NOBODY, cache) == before
        hub.repositories["org/whole"].lost = frozenset()
        assert resolve("org/whole", hub, cache) == resolve("org/whole", NOBODY, cache) == before.with_name(NEXT_COMMIT)
