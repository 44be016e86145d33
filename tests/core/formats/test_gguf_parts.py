"""A model that was split into several files."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from layerscale_core.errors import ModelFileError
from layerscale_core.formats import GgufFormat, open_model
from layerscale_core.models.spec import weight_shapes
from tests.support.split_gguf import part_name, write_part, write_parts
from tests.support.tiny_gguf import write_tiny_llama


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    (tmp_path / "whole").mkdir()
    return write_tiny_llama(tmp_path / "whole" / "Tiny.Q8_0.gguf", encoding="Q8_0")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """The same model in parts."""
    return write_parts(tmp_path / "parts", whole)


@pytest.mark.parametrize("named", ["", part_name(0), part_name(2)], ids=["folder", "first", "last"])
def test_parts_are_the_whole_whichever_is_named(folder: Path, whole: Path, named: str) -> None:
    split, one = open_model(folder / named, [GgufFormat()]), open_model(whole, [GgufFormat()])
    assert split.name == "Tiny.Q8_0"
    assert split.spec == one.spec
    assert split.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    for name, shape in weight_shapes(one.spec).items():
        if len(shape) == 2:
            np.testing.assert_array_equal(*(m.weights.matrix(name).dequantize() for m in (split, one)))
        else:
            np.testing.assert_array_equal(*(m.weights.vector(name) for m in (split, one)))
    tokenizers = [model.make_tokenizer() for model in (split, one)]
    assert tokenizers[0].encode("Hello, world") == tokenizers[1].encode("Hello, world")
    split.close()
    one.close()


def test_a_missing_part_is_named(folder: Path) -> None:
    (folder / part_name(1)).unlink()
    with pytest.raises(ModelFileError, match=r"Tiny.Q8_0-00002-of-00003.gguf: no such file"):
        open_model(folder, [GgufFormat()])


def test_parts_of_another_model_are_refused(folder: Path, whole: Path) -> None:
    (folder / part_name(2)).write_bytes((folder / part_name(1)).read_bytes())
    with pytest.raises(ModelFileError, match="it is not part 3 of 3"):
        open_model(folder, [GgufFormat()])
    (folder / part_name(2)).write_bytes(whole.read_bytes())
    with pytest.raises(ModelFileError, match="it is not part 3 of 3"):
        open_model(folder, [GgufFormat()])


def test_a_tensor_in_two_parts_is_refused(folder: Path, whole: Path) -> None:
    write_part(folder / part_name(2), 2, gguf.GGUFReader(whole).tensors[:1], whole)
    with pytest.raises(ModelFileError, match=r"holds it too, field 'token_embd.weight'"):
        open_model(folder, [GgufFormat()])
