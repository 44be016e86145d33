"""What well-formed files say, against the reader of the ``gguf`` package."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.formats.gguf.reader import GgufHeader, read_header
from layerscale_core.formats.metadata import is_array
from layerscale_core.texts import Texts
from tests.support.raw_gguf import ARRAY, F32, STRING, U32, array, entry, gguf_bytes, tensor, text, u32
from tests.support.tiny_gguf import write_tiny_llama

INTEGERS = {
    gguf.GGUFValueType.UINT8: (0, 2**8 - 1),
    gguf.GGUFValueType.INT8: (-(2**7), 2**7 - 1),
    gguf.GGUFValueType.UINT16: (0, 2**16 - 1),
    gguf.GGUFValueType.INT16: (-(2**15), 2**15 - 1),
    gguf.GGUFValueType.UINT32: (0, 2**32 - 1),
    gguf.GGUFValueType.INT32: (-(2**31), 2**31 - 1),
    gguf.GGUFValueType.UINT64: (0, 2**64 - 1),
    gguf.GGUFValueType.INT64: (-(2**63), 2**63 - 1),
}
SCALARS = {
    **{value_type: st.integers(*limits) for value_type, limits in INTEGERS.items()},
    gguf.GGUFValueType.FLOAT32: st.floats(width=32, allow_nan=False),
    gguf.GGUFValueType.FLOAT64: st.floats(allow_nan=False),
    gguf.GGUFValueType.BOOL: st.booleans(),
    gguf.GGUFValueType.STRING: st.text(st.characters(codec="utf-8"), max_size=20),
}
KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@st.composite
def entries(draw: st.DrawFn) -> dict[str, tuple[object, gguf.GGUFValueType, gguf.GGUFValueType | None]]:
    """Metadata of every value type and of arrays of each: key to value, type, and type of an array's items."""
    result = {}
    for key in draw(st.sets(KEYS.map("test.{}".format), max_size=12)):  # none that the reader itself looks at
        value_type = draw(st.sampled_from(list(SCALARS)))
        if draw(st.booleans()):
            items = draw(st.lists(SCALARS[value_type], min_size=1, max_size=6))
            result[key] = (items, gguf.GGUFValueType.ARRAY, value_type)
        else:
            result[key] = (draw(SCALARS[value_type]), value_type, None)
    return result


def parse(data: bytes) -> GgufHeader:
    return read_header(data, "test.gguf")


def plain(values: Mapping[str, object]) -> dict[str, object]:
    """Values with lists for the packed arrays."""
    return {key: list(value) if is_array(value) else value for key, value in values.items()}


@given(entries())
@settings(max_examples=60, deadline=None)
def test_reads_every_value_type_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    metadata: dict[str, tuple[object, gguf.GGUFValueType, gguf.GGUFValueType | None]],
) -> None:
    path = tmp_path_factory.mktemp("values") / "values.gguf"
    writer = gguf.GGUFWriter(path, "none")
    for key, (value, value_type, item_type) in metadata.items():
        writer.add_key_value(key, value, value_type, item_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    header = parse(path.read_bytes())
    expected = {key: value for key, (value, _, _) in metadata.items()} | {"general.architecture": "none"}
    assert plain(header.metadata.values) == expected
    for key, value in expected.items():
        found = header.metadata.values[key]
        assert is_array(found) == isinstance(value, list)
        assert (
            type(found) is type(value)
            if not is_array(found)
            else [type(item) for item in found] == [type(item) for item in value]
        )


def test_agrees_with_the_other_reader_on_a_whole_model(tiny_model_path: Path) -> None:
    other = gguf.GGUFReader(tiny_model_path)
    header = parse(tiny_model_path.read_bytes())
    theirs = {name: field.contents() for name, field in other.fields.items() if not name.startswith("GGUF.")}
    assert plain(header.metadata.values) == theirs
    assert header.version == 3
    assert [*header.tensors] == [tensor.name for tensor in other.tensors]
    for theirs_tensor in other.tensors:
        ours = header.tensors[theirs_tensor.name]
        assert ours.shape == tuple(reversed(theirs_tensor.shape.tolist()))
        assert ours.type.name == theirs_tensor.tensor_type.name
        assert (ours.offset, ours.num_bytes) == (theirs_tensor.data_offset, theirs_tensor.n_bytes)


def test_reads_version_2() -> None:
    header = parse(gguf_bytes([entry("k", U32, u32(7))], version=u32(2)))
    assert (header.version, header.metadata.values) == (2, {"k": 7})


@pytest.mark.parametrize("alignment", [1, 8, 64, 65_536])
def test_data_begins_at_the_files_own_alignment(alignment: int) -> None:
    rows = [tensor("a", (2,)), tensor("b", (1,), offset=alignment * 8)]
    header_bytes = gguf_bytes([entry("general.alignment", U32, u32(alignment))], rows)
    start = math.ceil(len(header_bytes) / alignment) * alignment
    header = parse(header_bytes + bytes(alignment * 9 + 8))
    assert [info.offset for info in header.tensors.values()] == [start, start + alignment * 8]


def test_tensors_may_stand_in_any_order_with_gaps_between_them() -> None:
    rows = [tensor("a", offset=256), tensor("b", offset=0), tensor("c", offset=128)]
    assert [*parse(gguf_bytes([], rows, bytes(384))).tensors] == ["a", "b", "c"]


def test_dimensions_are_slowest_first() -> None:
    header = parse(gguf_bytes([], [tensor("t", (2, 3, 5, 7))], bytes(4 * 2 * 3 * 5 * 7)))
    assert header.tensors["t"].shape == (7, 5, 3, 2)


def test_empty_arrays_and_texts_are_values() -> None:
    data = gguf_bytes(
        [
            entry("a", ARRAY, array(U32, 0, b"")),
            entry("b", ARRAY, array(STRING, 0, b"")),
            entry("c", STRING, text("")),
        ]
    )
    assert plain(parse(data).metadata.values) == {"a": [], "b": [], "c": ""}


@given(st.lists(st.binary(max_size=12), max_size=8))
@settings(max_examples=60, deadline=None)
def test_texts_that_are_not_utf8_keep_their_bytes(tokens: list[bytes]) -> None:
    items = b"".join(text(token) for token in tokens)
    values = parse(gguf_bytes([entry("tokens", ARRAY, array(STRING, len(tokens), items))])).metadata.values["tokens"]
    assert isinstance(values, Texts)
    assert [value.encode("utf-8", "surrogateescape") for value in values] == tokens


def test_special_floats_are_kept() -> None:
    specials = [struct.pack("<f", value) for value in (math.inf, -math.inf, math.nan)]
    data = gguf_bytes([entry(f"k{index}", F32, value) for index, value in enumerate(specials)])
    values = list(parse(data).metadata.values.values())
    assert values[:2] == [math.inf, -math.inf]
    assert math.isnan(values[2])


def test_names_of_the_longest_allowed_length_are_read() -> None:
    data = gguf_bytes([entry("k" * 65_535, U32, u32(1))], [tensor("t" * 64)], bytes(128))
    header = parse(data)
    assert [*header.metadata.values] == ["k" * 65_535]
    assert [*header.tensors] == ["t" * 64]


@pytest.mark.parametrize("encoding", ["F32", "Q4_K"])
def test_finds_each_tensors_bytes(tmp_path: Path, encoding: str) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf", layers=1, hidden=256, intermediate=256, encoding=encoding)
    data = path.read_bytes()
    header = parse(data)
    for theirs in gguf.GGUFReader(path).tensors:
        info = header.tensors[theirs.name]
        np.testing.assert_array_equal(
            np.frombuffer(data, np.uint8, info.num_bytes, info.offset), theirs.data.view(np.uint8).reshape(-1)
        )
