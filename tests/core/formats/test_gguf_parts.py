"""A model that was split into several files."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from layerscale_core.errors import ModelFileError
from layerscale_core.formats import GgufFormat, open_model
from layerscale_core.models.spec import weight_shapes
from tests.support.tiny_gguf import add_field, write_tiny_llama

NUM_PARTS = 3


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    (tmp_path / "whole").mkdir()
    return write_tiny_llama(tmp_path / "whole" / "Tiny.Q8_0.gguf", encoding="Q8_0")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """The same model in parts, as llama.cpp splits it: metadata in the first, tensors in all."""
    tensors = gguf.GGUFReader(whole).tensors
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, some in enumerate(np.array_split(np.arange(len(tensors)), NUM_PARTS)):
        write_part(folder / part_name(number), number, [tensors[index] for index in some], whole)
    return folder


def part_name(number: int) -> str:
    return f"Tiny.Q8_0-{number + 1:05}-of-{NUM_PARTS:05}.gguf"


def write_part(path: Path, number: int, tensors: list[gguf.ReaderTensor], whole: Path, count: int = NUM_PARTS) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    if number == 0:
        for key, field in gguf.GGUFReader(whole).fields.items():
            if not key.startswith(("GGUF.", "general.architecture")):
                add_field(writer, key, field.contents())
    writer.add_uint16("split.no", number)
    writer.add_uint16("split.count", count)
    for tensor in tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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
