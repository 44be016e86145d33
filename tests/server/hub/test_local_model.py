"""A model's name that is a path here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from layerscale_core.errors import ModelNotFoundError
from layerscale_server.hub import ResolvedModel, resolve_model
from tests.support.stand_in_hub import NOBODY

CONTENT = b"GGUF"


def test_a_file_wins_and_is_named_by_its_stem(tmp_path: Path) -> None:
    path = tmp_path / "My-Model.Q4_1.gguf"
    path.write_bytes(CONTENT)
    assert resolve_model(str(path)) == ResolvedModel(path, "My-Model.Q4_1")


def test_a_directory_wins_over_a_repository_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "single").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/single", endpoint=NOBODY) == ResolvedModel(Path("org/single"), "single")


def test_a_directory_is_named_by_its_whole_name(tmp_path: Path) -> None:
    (tmp_path / "Qwen2.5-0.5B").mkdir()
    assert resolve_model(str(tmp_path / "Qwen2.5-0.5B")).model_id == "Qwen2.5-0.5B"


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    assert resolve_model("~/m.gguf").path == tmp_path / "m.gguf"
    with pytest.raises(ModelNotFoundError, match="~nobody-of-this-name/m"):
        resolve_model("~nobody-of-this-name/m.gguf")


@pytest.mark.parametrize("name", ["", "absent.gguf", "/absent/m.gguf", "models/absent.gguf", "a b", "a/b/c/d"])
def test_neither_a_path_nor_a_repository_id_is_named_in_one_line(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no file or directory") as caught:
        resolve_model(name, endpoint=NOBODY)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_no_file_can_have_is_an_error_of_one_line() -> None:
    with pytest.raises(ModelNotFoundError, match="File name too long"):
        resolve_model("m" * 5_000)


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model("\x1b[2J\nmodel")
    assert str(caught.value).isprintable()


def test_a_local_path_does_not_load_the_hub_library(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(CONTENT)
    code = (
        "import sys; from layerscale_server.hub import resolve_model; "
        f"resolve_model({str(path)!r}); assert 'huggingface_hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
