"""A name on the hub to a GGUF file here, through a stand-in for the hub."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE

from layerscale_core.errors import ModelNotFoundError
from layerscale_server.hub import ResolvedModel, resolve_model
from tests.support.stand_in_hub import COMMIT, NOBODY, REVOKED_TOKEN, StandInHub, StandInRepository

SMALL = b"GGUF" + bytes(range(256)) * 40
OTHER = b"GGUF" + bytes(100)
PARTS = {f"Q2_K/m-Q2_K-0000{number}-of-00002.gguf": SMALL[:number] for number in (1, 2)}


@pytest.fixture(autouse=True)
def repositories(hub: StandInHub) -> None:
    hub.repositories |= {
        "org/single": StandInRepository({"README.md": b"# A model", "single.gguf": SMALL}),
        "org/several": StandInRepository({"m-Q4_K_M.gguf": SMALL, "m-Q8_0.gguf": OTHER, **PARTS}),
        "org/private": StandInRepository({"private.gguf": SMALL}, token="hf_right"),
        "org/gated": StandInRepository({"gated.gguf": SMALL}, gated_token="hf_right"),
        "org/forbidden": StandInRepository({"m.gguf": SMALL}, forbidding=True),
        "org/lost": StandInRepository({"m.gguf": SMALL}, lost=frozenset({"m.gguf"})),
    }


def resolve(name: str, hub: StandInHub | str, cache: Path) -> ResolvedModel:
    return resolve_model(name, endpoint=hub if isinstance(hub, str) else hub.url, cache_dir=cache)


def stored_bytes(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("blobs/*"))


class TestDownload:
    def test_fetches_the_only_gguf_file_and_nothing_else(self, hub: StandInHub, cache: Path) -> None:
        resolved = resolve("org/single", hub, cache)
        assert resolved.model_id == "org/single"
        assert resolved.path.name == "single.gguf"
        assert resolved.path.read_bytes() == SMALL
        assert hub.downloads() == ["single.gguf"]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("org/several", SMALL),
            ("org/several:Q8_0", OTHER),
            ("org/several/m-Q8_0.gguf", OTHER),
            ("org/several:m-Q8_0.gguf", OTHER),
            ("org/several@main:Q8_0", OTHER),
            ("org/several@refs/pr/1:Q8_0", OTHER),
            (f"org/several@{COMMIT}:Q8_0", OTHER),
        ],
    )
    def test_a_suffix_chooses_the_file(self, hub: StandInHub, cache: Path, name: str, content: bytes) -> None:
        resolved = resolve(name, hub, cache)
        assert resolved.path.read_bytes() == content
        assert resolved.model_id == "org/several"

    @pytest.mark.parametrize("name", ["org/several:Q2_K", f"org/several/{list(PARTS)[1]}"])
    def test_all_parts_of_a_split_model_are_fetched_and_the_first_is_opened(
        self, hub: StandInHub, cache: Path, name: str
    ) -> None:
        path = resolve(name, hub, cache).path
        assert {f"Q2_K/{part.name}": part.read_bytes() for part in path.parent.iterdir()} == PARTS
        assert path.name == "m-Q2_K-00001-of-00002.gguf"
        assert hub.downloads() == list(PARTS)

    def test_the_second_time_only_the_list_is_asked_for(self, hub: StandInHub, cache: Path) -> None:
        first = resolve("org/single", hub, cache)
        hub.requests.clear()
        assert resolve("org/single", hub, cache) == first
        assert hub.requests == [("GET", "/api/models/org/single")]

    def test_a_new_commit_of_the_same_file_downloads_nothing(self, hub: StandInHub, cache: Path) -> None:
        resolve("org/single", hub, cache)
        hub.repositories["org/single"].commit = "a" * 40
        resolved = resolve("org/single", hub, cache)
        assert resolved.path.parent.name == "a" * 40
        assert resolve("org/single", NOBODY, cache) == resolved
        assert hub.downloads() == ["single.gguf"]

    def test_a_changed_file_is_downloaded_again(self, hub: StandInHub, cache: Path) -> None:
        resolve("org/single", hub, cache)
        hub.repositories["org/single"] = StandInRepository({"single.gguf": OTHER}, commit="a" * 40)
        assert resolve("org/single", hub, cache).path.read_bytes() == OTHER

    def test_a_cut_connection_is_resumed_where_it_broke(self, hub: StandInHub, cache: Path) -> None:
        content = os.urandom(DOWNLOAD_CHUNK_SIZE + 2_000)
        hub.repositories["org/single"].files["single.gguf"] = content
        hub.cut_after = DOWNLOAD_CHUNK_SIZE + 1_000
        assert resolve("org/single", hub, cache).path.read_bytes() == content
        assert hub.ranges == [None, f"bytes={DOWNLOAD_CHUNK_SIZE}-"]

    def test_a_connection_that_is_always_cut_ends_in_one_line(
        self, hub: StandInHub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "sleep", lambda _: None)
        hub.cut_after, hub.num_cuts = 1_000, 100
        with pytest.raises(ModelNotFoundError, match=f"cannot fetch org/single from {hub.url}: .*; check the network"):
            resolve("org/single", hub, cache)
        assert stored_bytes(cache) == 0

    def test_a_damaged_file_is_refused_and_not_kept(self, hub: StandInHub, cache: Path) -> None:
        hub.corrupt = frozenset({"single.gguf"})
        with pytest.raises(ModelNotFoundError, match=r"single\.gguf arrived damaged"):
            resolve("org/single", hub, cache)
        assert stored_bytes(cache) == 0
        hub.corrupt = frozenset()
        assert resolve("org/single", hub, cache).path.read_bytes() == SMALL

    @pytest.mark.parametrize(("age_s", "is_kept"), [(0, True), (3_600, False)])
    def test_what_a_killed_download_left_is_removed_and_a_live_one_is_not(
        self, hub: StandInHub, cache: Path, age_s: int, is_kept: bool
    ) -> None:
        partial = cache / "models--org--single" / "blobs" / "0123abcd.4567.incomplete"
        partial.parent.mkdir(parents=True)
        partial.write_bytes(b"GG")
        os.utime(partial, (time.time() - age_s,) * 2)
        resolve("org/single", hub, cache)
        assert partial.exists() is is_kept

    def test_a_file_larger_than_the_disk_is_refused_before_the_download(
        self, hub: StandInHub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(SMALL) - 1))
        need_and_have = r"no room for org/single: 0\.0 MB are still .*, and 0\.0 MB are free in .*cache; .* HF_HOME"
        with pytest.raises(ModelNotFoundError, match=need_and_have):
            resolve("org/single", hub, cache)
        assert hub.downloads() == []

    def test_a_file_that_just_fits_the_disk_is_fetched(
        self, hub: StandInHub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(SMALL)))
        assert resolve("org/single", hub, cache).path.read_bytes() == SMALL

    @pytest.mark.parametrize("name", ["org/private", "org/gated"])
    def test_the_token_of_the_environment_opens_a_closed_repository(
        self, hub: StandInHub, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        assert resolve(name, hub, cache).path.read_bytes() == SMALL
        assert hub.leaked_tokens == []


class TestRefusal:
    @pytest.mark.parametrize(
        ("name", "token", "words"),
        [
            ("org/absent", None, "no repository org/absent at .*; if it is private, set HF_TOKEN"),
            ("org/absent", "hf_other", "no repository org/absent at"),
            ("org/private", None, "set HF_TOKEN"),
            ("org/private", "hf_wrong", "no repository org/private"),
            ("org/gated", None, "org/gated is gated: accept its conditions there and set HF_TOKEN"),
            ("org/gated", "hf_wrong", "org/gated is gated: ask for access there"),
            ("org/single", REVOKED_TOKEN, "does not accept the token of HF_TOKEN: replace it, or unset it"),
            ("org/forbidden", "hf_narrow", "refused access to org/forbidden: check what the token of HF_TOKEN allows"),
            ("org/lost", None, "lists a file of org/lost that it does not have"),
            ("org/single@v9", None, "org/single has no revision 'v9'"),
            ("org/single:Q2_K", None, "no Q2_K file; name one of: single.gguf"),
            ("org/single/other.gguf", None, "has no file 'other.gguf'"),
        ],
    )
    def test_is_one_line_with_the_remedy_and_without_the_token(
        self,
        hub: StandInHub,
        cache: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        token: str | None,
        words: str,
    ) -> None:
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(ModelNotFoundError, match=words) as caught:
            resolve(name, hub, cache)
        assert "\n" not in str(caught.value)
        assert token is None or token not in str(caught.value)
        assert hub.downloads() == []

    def test_a_failing_hub_is_named_with_its_status(self, hub: StandInHub, cache: Path) -> None:
        hub.unavailable = True
        with pytest.raises(ModelNotFoundError, match="answered HTTP 503 for org/single"):
            resolve("org/single", hub, cache)

    def test_a_hub_that_cannot_be_reached_is_named_with_the_cause(self, cache: Path) -> None:
        with pytest.raises(ModelNotFoundError, match=f"cannot fetch org/single from {NOBODY}: .*refused"):
            resolve("org/single", NOBODY, cache)

    @pytest.mark.parametrize("port", ["1", None], ids=["unreachable", "refusing"])
    def test_the_password_of_a_mirror_is_not_shown(self, hub: StandInHub, cache: Path, port: str | None) -> None:
        address = f"127.0.0.1:{port}" if port else hub.url.removeprefix("http://")
        with pytest.raises(ModelNotFoundError, match=f"http://{address}") as refusal:
            resolve("acme/nothing", f"http://user:PLANTED@{address}", cache)
        assert "PLANTED" not in str(refusal.value)

    def test_a_cache_that_cannot_be_written_is_named(self, hub: StandInHub, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file where the folder should be")
        with pytest.raises(ModelNotFoundError, match=r"org/single cannot be stored: .*cache.*set HF_HOME"):
            resolve("org/single", hub, tmp_path / "cache")

    def test_a_disk_that_fills_during_the_download_is_named(
        self, hub: StandInHub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
        with pytest.raises(ModelNotFoundError, match="the disk is full: org/single cannot be stored"):
            resolve("org/single", hub, cache)
        assert stored_bytes(cache) == 0


class TestWithoutTheHub:
    @pytest.mark.parametrize("name", ["org/several:Q8_0", "org/several", "org/several/m-Q8_0.gguf"])
    def test_what_was_fetched_before_is_served_with_a_warning(
        self, hub: StandInHub, cache: Path, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        fetched = resolve("org/several:Q8_0", hub, cache)
        with caplog.at_level(logging.WARNING, logger="layerscale_server.hub"):
            assert resolve(name, NOBODY, cache) == fetched
        assert f"serving {fetched.path} from the cache" in caplog.text

    def test_another_file_than_the_cached_one_is_an_error(self, hub: StandInHub, cache: Path) -> None:
        resolve("org/several:Q8_0", hub, cache)
        both = r"refused.*; in the cache, org/several has no Q4_K_M file; name one of: m-Q8_0\.gguf"
        with pytest.raises(ModelNotFoundError, match=both):
            resolve("org/several:Q4_K_M", NOBODY, cache)

    def test_a_failing_hub_does_not_stop_a_server_whose_model_is_on_disk(self, hub: StandInHub, cache: Path) -> None:
        fetched = resolve("org/single", hub, cache)
        hub.unavailable = True
        assert resolve("org/single", hub, cache) == fetched

    def test_a_repository_that_was_deleted_is_served_from_the_cache(self, hub: StandInHub, cache: Path) -> None:
        fetched = resolve("org/single", hub, cache)
        del hub.repositories["org/single"]
        assert resolve("org/single", hub, cache) == fetched
