"""Headers that lie: each ends in one clear line, before any memory they claim is touched."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import pytest

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats import GgufFormat, open_model
from layerscale_core.formats.gguf.reader import MAX_ARRAY_ENTRIES
from tests.support.raw_gguf import (
    ARRAY,
    BOOL,
    F32,
    I32,
    STRING,
    U8,
    U16,
    U32,
    U64,
    array,
    entry,
    gguf_bytes,
    tensor,
    text,
    u32,
    u64,
)

HUGE = 2**64 - 1
MAX_PEAK_BYTES = 4 * 2**20
FIRST_ENTRY = 24
"""Where metadata begins: after magic, version and two counts."""


@dataclass(frozen=True)
class Hostile:
    """A file, what its error line says, and where it says so."""

    data: bytes
    says: str
    field: str | None = None
    offset: int | None = None


def alignment(value_type: int, value: bytes) -> bytes:
    return gguf_bytes([entry("general.alignment", value_type, value)])


def one_array(item_type: int, count: int, items: bytes = b"") -> bytes:
    return gguf_bytes([entry("k", ARRAY, array(item_type, count, items))])


def one_tensor(table_row: bytes, data_bytes: int = 128) -> bytes:
    return gguf_bytes([], [table_row], bytes(data_bytes))


VALUE = FIRST_ENTRY + len(text("k")) + 4
"""Where the value of a first key ``k`` begins."""

NOT_GGUF = {
    "only a letter": Hostile(b"G", "truncated", "magic", 0),
    "another letter case": Hostile(gguf_bytes(magic=b"gguf"), "not a GGUF file", "magic", 0),
    "the older GGML": Hostile(gguf_bytes(magic=b"tjgg"), "not a GGUF file", "magic", 0),
    "zeros": Hostile(bytes(4096), "not a GGUF file", "magic", 0),
    "ones": Hostile(b"\xff" * 4096, "not a GGUF file", "magic", 0),
    "a zip archive": Hostile(b"PK\x03\x04" + bytes(100), "not a GGUF file", "magic", 0),
    "a safetensors file": Hostile(u64(2) + b"{}", "not a GGUF file", "magic", 0),
    "a web page": Hostile(b"<!DOCTYPE html><html></html>", "not a GGUF file", "magic", 0),
    "a large-file pointer": Hostile(b"version https://git-lfs.github.com/spec/v1\n", "not a GGUF file", "magic", 0),
    "only the magic": Hostile(b"GGUF", "truncated", "version", 4),
    "half a version": Hostile(b"GGUF\x03\x00", "truncated", "version", 4),
    "version 0": Hostile(gguf_bytes(version=u32(0)), "version 0 is unknown", "version", 4),
    "version 1": Hostile(gguf_bytes(version=u32(1)), "version 1 is obsolete", "version", 4),
    "version 4": Hostile(gguf_bytes(version=u32(4)), "version 4 is unknown", "version", 4),
    "version 2**32 - 1": Hostile(gguf_bytes(version=u32(2**32 - 1)), "is unknown", "version", 4),
    "big-endian version 2": Hostile(gguf_bytes(version=bytes([0, 0, 0, 2])), "big-endian", "version", 4),
    "big-endian version 3": Hostile(gguf_bytes(version=bytes([0, 0, 0, 3])), "big-endian", "version", 4),
}

COUNTS = {
    "no tensor count": Hostile(b"GGUF" + u32(3), "truncated", "tensor_count", 8),
    "half a tensor count": Hostile(b"GGUF" + u32(3) + bytes(4), "truncated", "tensor_count", 8),
    "no key count": Hostile(b"GGUF" + u32(3) + u64(0), "truncated", "metadata_kv_count", 16),
    "2**64 - 1 tensors": Hostile(gguf_bytes(num_tensors=HUGE), "more than the limit", "tensor_count", 8),
    "2**63 tensors": Hostile(gguf_bytes(num_tensors=2**63), "more than the limit", "tensor_count", 8),
    "65,537 tensors": Hostile(gguf_bytes(num_tensors=65_537), "more than the limit", "tensor_count", 8),
    "tensors that cannot fit": Hostile(gguf_bytes(num_tensors=65_536), "claims 65536 entries", "tensor_count", 8),
    "2**64 - 1 keys": Hostile(gguf_bytes(num_keys=HUGE), "more than the limit", "metadata_kv_count", 16),
    "65,537 keys": Hostile(gguf_bytes(num_keys=65_537), "more than the limit", "metadata_kv_count", 16),
    "keys that cannot fit": Hostile(gguf_bytes(num_keys=1), "claims 1 entries", "metadata_kv_count", 16),
    "one key too many": Hostile(gguf_bytes([entry("k", U8, b"\1" * 64)], num_keys=4), "bytes", "metadata key 1"),
    "one tensor too many": Hostile(gguf_bytes([], [tensor()], bytes(128), num_tensors=2), "bytes", "tensor 1"),
}

KEYS = {
    "a key of 2**64 - 1 bytes": Hostile(
        gguf_bytes([text("k", claimed_length=HUGE) + bytes(16)]), "1 to 65535 bytes", "metadata key 0", FIRST_ENTRY
    ),
    "a key of 2**63 bytes": Hostile(
        gguf_bytes([text("k", claimed_length=2**63) + bytes(16)]), "1 to 65535 bytes", "metadata key 0", FIRST_ENTRY
    ),
    "a key of 65,536 bytes": Hostile(
        gguf_bytes([entry("k" * 65_536, U8, b"\1")]), "1 to 65535 bytes", "metadata key 0", FIRST_ENTRY
    ),
    "a key without a name": Hostile(gguf_bytes([entry("", U32, u32(1))]), "claims 0", "metadata key 0", FIRST_ENTRY),
    "a key past the end": Hostile(
        gguf_bytes([text("k", claimed_length=99) + bytes(16)]), "truncated", "metadata key 0", FIRST_ENTRY + 8
    ),
    "a key that is not UTF-8": Hostile(
        gguf_bytes([entry(b"\xff\xfe", U8, b"\1")]), "not valid UTF-8", "metadata key 0", FIRST_ENTRY
    ),
    "a key twice": Hostile(gguf_bytes([entry("k", U8, b"\1")] * 2), "appears twice", "k", VALUE + 1),
    "a key with line breaks twice": Hostile(gguf_bytes([entry("a\nb", U8, b"\1")] * 2), "appears twice", "a\nb"),
    "a long key twice": Hostile(gguf_bytes([entry("k" * 60_000, U8, b"\1")] * 2), "appears twice", "k" * 79 + "…"),
}

VALUES = {
    "no value type": Hostile(gguf_bytes([text("k" * 9)], num_keys=1), "truncated", "k" * 9, FIRST_ENTRY + 17),
    "value type 13": Hostile(gguf_bytes([entry("k", 13, b"\1")]), "value type 13 is unknown", "k", VALUE - 4),
    "value type 2**32 - 1": Hostile(gguf_bytes([entry("k", 2**32 - 1, b"\1")]), "is unknown", "k", VALUE - 4),
    "half a number": Hostile(gguf_bytes([entry("k", U64, bytes(4))]), "truncated", "k", VALUE),
    "a boolean of 2": Hostile(gguf_bytes([entry("k", BOOL, b"\2")]), "neither 0 nor 1", "k", VALUE),
    "text of 2**64 - 1 bytes": Hostile(
        gguf_bytes([entry("k", STRING, text("v", claimed_length=HUGE))]), "truncated", "k", VALUE + 8
    ),
    "text one byte past the end": Hostile(
        gguf_bytes([entry("k", STRING, text("v", claimed_length=2))]), "2 bytes are needed, 1", "k", VALUE + 8
    ),
    "text without its length": Hostile(gguf_bytes([entry("k", STRING, bytes(7))]), "truncated", "k", VALUE),
}

ARRAYS = {
    "an array of arrays": Hostile(one_array(ARRAY, 1, array(U8, 1, b"\1")), "arrays of arrays", "k", VALUE),
    "an array of an unknown type": Hostile(one_array(99, 1, b"\1"), "type 99 is unknown", "k", VALUE),
    "an array without a count": Hostile(gguf_bytes([entry("k", ARRAY, u32(U8))]), "truncated", "k", VALUE + 4),
    "2**64 - 1 bytes in an array": Hostile(one_array(U8, HUGE), "at most 2097152 entries", "k", VALUE + 4),
    "a size that wraps to 0": Hostile(one_array(U64, 2**61), "at most 2097152 entries", "k", VALUE + 4),
    "2**64 - 1 texts in an array": Hostile(one_array(STRING, HUGE), "at most 2097152 entries", "k", VALUE + 4),
    "as many numbers as are allowed and not there": Hostile(
        one_array(U64, MAX_ARRAY_ENTRIES, bytes(8)), "truncated", "k", VALUE + 12
    ),
    "as many texts as are allowed and not there": Hostile(
        one_array(STRING, MAX_ARRAY_ENTRIES, text("v")), "truncated", "k[1]", VALUE + 12 + 9
    ),
    "arrays that are too long together": Hostile(
        gguf_bytes(
            [
                entry("k", ARRAY, array(U8, 2, bytes(2))),
                entry("l", ARRAY, array(U8, MAX_ARRAY_ENTRIES - 1, bytes(64))),
            ]
        ),
        "at most 2097152 entries",
        "l",
    ),
    "a long text within an array": Hostile(
        one_array(STRING, 3, text("a") + text("b", claimed_length=HUGE) + text("c")), "truncated", "k[1]"
    ),
    "an array that ends within a length": Hostile(one_array(STRING, 2, text("a") + bytes(3)), "truncated", "k[1]"),
    "an array with a boolean of 7": Hostile(one_array(BOOL, 3, bytes([0, 1, 7])), "neither 0 nor 1", "k"),
}

ALIGNMENTS = {
    "alignment 0": Hostile(alignment(U32, u32(0)), "between 1 and 65536", "general.alignment"),
    "alignment 3": Hostile(alignment(U32, u32(3)), "power of two", "general.alignment"),
    "alignment 131,072": Hostile(alignment(U32, u32(2**17)), "between 1 and 65536", "general.alignment"),
    "alignment 2**32 - 1": Hostile(alignment(U32, u32(2**32 - 1)), "between 1 and 65536", "general.alignment"),
    "alignment -32": Hostile(alignment(I32, u32(2**32 - 32)), "between 1 and 65536", "general.alignment"),
    "alignment 32.0": Hostile(alignment(F32, bytes([0, 0, 0, 66])), "expected a whole number", "general.alignment"),
    "alignment true": Hostile(alignment(BOOL, b"\1"), "expected a whole number", "general.alignment"),
    "alignment as text": Hostile(alignment(STRING, text("32")), "expected a whole number", "general.alignment"),
    "alignment as an array": Hostile(
        alignment(ARRAY, array(U16, 1, b"\x20\0")), "expected a whole number", "general.alignment"
    ),
}

TENSORS = {
    "a tensor name of 65 bytes": Hostile(one_tensor(tensor("t" * 65)), "1 to 64 bytes", "tensor 0", FIRST_ENTRY),
    "a tensor without a name": Hostile(one_tensor(tensor("")), "claims 0", "tensor 0", FIRST_ENTRY),
    "a tensor name that is not UTF-8": Hostile(one_tensor(tensor(b"\x80")), "not valid UTF-8", "tensor 0", FIRST_ENTRY),
    "no dimensions": Hostile(one_tensor(tensor(dimensions=())), "1 to 4 dimensions", "t"),
    "five dimensions": Hostile(one_tensor(tensor(dimensions=(1,) * 5)), "1 to 4 dimensions", "t"),
    "2**32 - 1 dimensions": Hostile(one_tensor(tensor(claimed_dimensions=2**32 - 1)), "1 to 4 dimensions", "t"),
    "a dimension of 0": Hostile(one_tensor(tensor(dimensions=(32, 0))), "a dimension is 0", "t"),
    "a product that wraps to 0": Hostile(one_tensor(tensor(dimensions=(2**32, 2**32))), "truncated", "t"),
    "a size that wraps to 128": Hostile(one_tensor(tensor(dimensions=(2**62 + 32,))), "truncated", "t"),
    "four dimensions of 2**64 - 1": Hostile(one_tensor(tensor(dimensions=(HUGE,) * 4)), "truncated", "t"),
    "half a block": Hostile(one_tensor(tensor(dimensions=(48,), type_id=2)), "not whole Q4_0 blocks", "t"),
    "an unaligned offset": Hostile(one_tensor(tensor(offset=8)), "multiple of the alignment 32", "t"),
    "an offset past the end": Hostile(one_tensor(tensor(offset=2**40)), "truncated", "t"),
    "an offset that wraps": Hostile(one_tensor(tensor(offset=2**64 - 64)), "truncated", "t"),
    "data one byte short": Hostile(one_tensor(tensor(), data_bytes=127), "truncated", "t"),
    "no data": Hostile(gguf_bytes([], [tensor()]), "truncated", "t"),
    "half a table row": Hostile(gguf_bytes([], [tensor("t" * 64)[:80]], num_tensors=1), "truncated", "t" * 64),
    "a tensor twice": Hostile(
        gguf_bytes([], [tensor(), tensor(offset=128)], bytes(256)), "two tensors have this name", "t"
    ),
    "two tensors in one place": Hostile(
        gguf_bytes([], [tensor("a"), tensor("b")], bytes(256)), "overlaps that of 'a'", "b"
    ),
    "two tensors that overlap": Hostile(
        gguf_bytes([], [tensor("a", offset=32), tensor("b")], bytes(256)), "overlaps that of 'b'", "a"
    ),
}

CATALOGUE = NOT_GGUF | COUNTS | KEYS | VALUES | ARRAYS | ALIGNMENTS | TENSORS


@pytest.mark.parametrize("name", CATALOGUE)
def test_refuses_in_one_line_and_little_memory(name: str, tmp_path: Path) -> None:
    hostile = CATALOGUE[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(hostile.data)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError) as caught:
            open_model(path, [GgufFormat()])
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = str(caught.value)
    assert hostile.says in line
    assert str(path) in line
    assert "\n" not in line
    assert len(line) < 400
    assert caught.value.field == hostile.field
    if hostile.offset is not None:
        assert caught.value.offset == hostile.offset
    assert peak_bytes < MAX_PEAK_BYTES


@pytest.mark.parametrize(("type_id", "described"), [(17, "IQ2_XS"), (4, "number 4"), (9_999, "number 9999")])
def test_a_type_that_cannot_be_read_is_named_with_its_tensor(type_id: int, described: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(one_tensor(tensor("some.weight", type_id=type_id)))
    with pytest.raises(UnsupportedModelError, match=rf"'some\.weight' is of type {described}.*Q4_K, .*IQ4_NL"):
        open_model(path, [GgufFormat()])


def test_an_array_of_just_the_allowed_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(one_array(U8, MAX_ARRAY_ENTRIES, bytes(MAX_ARRAY_ENTRIES)))
    with pytest.raises(ModelFileError, match=r"the key is missing, field 'general\.architecture'"):
        open_model(path, [GgufFormat()])
