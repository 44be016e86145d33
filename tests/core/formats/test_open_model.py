"""From a path to the format that opens it, and the paths that no format can open."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from layerscale_core.errors import ModelFileError
from layerscale_core.formats import GgufFormat, SafetensorsFormat, open_model
from layerscale_core.formats.files import map_file
from tests.support.tiny_folder import write_tiny_folder


def line_for(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        open_model(path, [GgufFormat()])
    line = str(caught.value)
    assert str(path) in line
    assert "\n" not in line
    return line


def test_opens_a_file_whatever_its_name(tiny_model_path: Path, tmp_path: Path) -> None:
    for name in ("model.gguf", "model.GGUF", "model", "model.bin"):
        copy = tmp_path / name
        shutil.copy(tiny_model_path, copy)
        assert open_model(copy, [GgufFormat()]).name == "model"


def test_opens_the_one_model_of_a_directory(tiny_model_path: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model_path, tmp_path / "small.gguf")
    (tmp_path / "README.md").write_text("a model")
    assert open_model(tmp_path, [GgufFormat()]).name == "small"


def test_several_models_in_a_directory_are_a_choice_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    assert "holds 2 .gguf models; name one file" in line_for(tmp_path)


def test_a_directory_with_safetensors_too_is_left_to_their_format(tiny_model_path: Path, tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "both")
    shutil.copy(tiny_model_path, folder)
    assert open_model(folder, [GgufFormat(), SafetensorsFormat()]).name == "both"
    assert open_model(folder / tiny_model_path.name, [GgufFormat(), SafetensorsFormat()]).name == tiny_model_path.stem


def test_a_directory_without_a_model_says_which_formats_are_known(tmp_path: Path) -> None:
    assert "the directory holds no model of a known format (gguf)" in line_for(tmp_path)


def test_a_file_of_another_kind_says_which_formats_are_known(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"PK\x03\x04")
    assert "not a model of a known format (gguf)" in line_for(path)


def test_the_first_format_that_matches_opens_the_file(tiny_model_path: Path) -> None:
    class Jealous(GgufFormat):
        def open(self, path: Path, *, metadata_only: bool = False) -> None:
            raise ModelFileError(str(path), "mine")

    open_model(tiny_model_path, [GgufFormat(), Jealous()])
    with pytest.raises(ModelFileError, match="mine"):
        open_model(tiny_model_path, [Jealous(), GgufFormat()])


@pytest.mark.parametrize("name", ["missing.gguf", "missing", "missing/model.gguf"])
def test_a_missing_path_is_named(name: str, tmp_path: Path) -> None:
    assert "no such file" in line_for(tmp_path / name)


@pytest.mark.parametrize("name", ["x" * 5000, "null\0byte"])
def test_a_path_that_cannot_exist_is_an_error_and_not_a_crash(name: str, tmp_path: Path) -> None:
    line_for(tmp_path / name)


def test_a_path_below_a_file_is_named(tiny_model_path: Path) -> None:
    assert "not a directory" in line_for(tiny_model_path / "model.gguf")


@pytest.mark.parametrize("name", ["empty.gguf", "empty"])
def test_an_empty_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    assert "the file is empty" in line_for(path)


def test_a_link_to_itself_is_named(tmp_path: Path) -> None:
    path = tmp_path / "loop.gguf"
    path.symlink_to(path)
    assert "symbolic links" in line_for(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", ["pipe.gguf", "pipe"])
def test_a_pipe_is_refused_without_waiting_for_a_writer(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    assert not GgufFormat().matches(path) or name.endswith(".gguf")
    assert "not a regular file" in line_for(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tiny_model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.gguf"
    shutil.copy(tiny_model_path, path)
    path.chmod(0)
    assert "permission denied" in line_for(path)


def test_a_file_that_cannot_be_opened_is_named(monkeypatch: pytest.MonkeyPatch, tiny_model_path: Path) -> None:
    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "permission denied" in line_for(tiny_model_path)


def test_a_directory_cannot_be_mapped_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a directory"):
        map_file(tmp_path)
