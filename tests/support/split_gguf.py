"""GGUF models in several files, as llama.cpp splits them: metadata in the first, tensors in all."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.support.tiny_gguf import add_field

NUM_PARTS = 3


def part_name(number: int) -> str:
    return f"Tiny.Q8_0-{number + 1:05}-of-{NUM_PARTS:05}.gguf"


def write_parts(folder: Path, whole: Path) -> Path:
    """Write a model's parts into a new folder and return it."""
    tensors = gguf.GGUFReader(whole).tensors
    folder.mkdir()
    for number, some in enumerate(np.array_split(np.arange(len(tensors)), NUM_PARTS)):
        write_part(folder / part_name(number), number, [tensors[index] for index in some], whole)
    return folder


def write_part(path: Path, number: int, tensors: list[gguf.ReaderTensor], whole: Path, count: int = NUM_PARTS) -> None:
    """Write one part.

    Args:
        number: from 0.
        whole: where the first part's metadata come from.
    """
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
