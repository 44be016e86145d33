"""The header of a GGUF file, versions 2 and 3: metadata and tensor table, every claim checked before it is used.

Layout, all little-endian: magic, version u32, tensor count u64, metadata count u64, the metadata (name, type u32,
value), the tensor table (name, number of dimensions u32, dimensions u64 with the fastest first, type u32, offset u64),
padding to the alignment, then the tensors' data.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats.gguf.cursor import Cursor
from layerscale_core.formats.gguf.ggml_types import GGML_TYPES, UNSUPPORTED_TYPES, GgmlType
from layerscale_core.formats.metadata import Metadata

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 65_536

MAX_KEYS = 65_536
MAX_KEY_BYTES = 65_535
MAX_TENSORS = 65_536
MAX_TENSOR_NAME_BYTES = 64
MAX_DIMENSIONS = 4
MAX_ARRAY_ENTRIES = 2**21
"""Of all arrays together; the largest vocabularies with their merges have under a million."""

_STRING = 8
_ARRAY = 9
_BOOL = 7
_SCALAR_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "B", 10: "Q", 11: "q", 12: "d"}

_MIN_KEY_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies in the file.

    Attributes:
        shape: slowest dimension first: [rows, cols] of a matrix.
        offset: from the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) // self.type.block_size * self.type.block_bytes


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a file says about itself. Tensors do not overlap, and lie inside the file unless only metadata counts."""

    version: int
    metadata: Metadata
    tensors: dict[str, TensorInfo]


def read_header(data: mmap.mmap | bytes, path: str, *, metadata_only: bool = False) -> GgufHeader:
    """Read and check a file's header, in time and memory bounded by constants whatever it claims.

    Args:
        metadata_only: the tensors' data may be missing.

    Raises:
        ModelFileError: truncated, corrupt, hostile, or of another version or byte order.
        UnsupportedModelError: a tensor has a type this build cannot read.
    """
    cursor = Cursor(data, path)
    version = _read_version(cursor)
    num_tensors = _read_count(cursor, "tensor_count", _MIN_TENSOR_BYTES, MAX_TENSORS)
    num_keys = _read_count(cursor, "metadata_kv_count", _MIN_KEY_BYTES, MAX_KEYS)
    metadata = _read_metadata(cursor, num_keys, path)
    alignment = _alignment(metadata)
    tensors = [_read_tensor(cursor, index, alignment, path) for index in range(num_tensors)]
    data_start = -(-cursor.offset // alignment) * alignment
    file_size = None if metadata_only else len(data)
    return GgufHeader(version, metadata, _place(tensors, data_start, file_size, path))


def _read_version(cursor: Cursor) -> int:
    magic = cursor.raw(4, "magic")
    if magic != MAGIC:
        cursor.fail(f"not a GGUF file: it begins with {magic!r}", "magic", 0)
    version = cursor.u32("version")
    if version and version % 2**16 == 0:
        cursor.fail("it is big-endian; convert it to little-endian", "version", 4)
    if version == 1:
        cursor.fail("GGUF version 1 is obsolete; convert the model again", "version", 4)
    if version not in SUPPORTED_VERSIONS:
        cursor.fail(f"GGUF version {version} is unknown; versions 2 and 3 can be read", "version", 4)
    return version


def _read_count(cursor: Cursor, field: str, min_bytes: int, maximum: int) -> int:
    """A count of entries that each take at least ``min_bytes`` of what is left."""
    start = cursor.offset
    count = cursor.u64(field)
    if count > maximum:
        cursor.fail(f"it claims {count} entries, more than the limit of {maximum}", field, start)
    if count * min_bytes > cursor.remaining:
        cursor.fail(f"truncated: it claims {count} entries, {cursor.remaining} bytes are left", field, start)
    return count


def _read_metadata(cursor: Cursor, num_keys: int, path: str) -> Metadata:
    values: dict[str, object] = {}
    offsets: dict[str, int] = {}
    entries_left = MAX_ARRAY_ENTRIES
    for index in range(num_keys):
        start = cursor.offset
        key = cursor.name(MAX_KEY_BYTES, f"metadata key {index}")
        if key in values:
            cursor.fail("the key appears twice", key, start)
        offsets[key] = cursor.offset
        value_type = _read_type(cursor, key)
        if value_type == _ARRAY:
            array = _read_array(cursor, key, entries_left)
            entries_left -= len(array)
            values[key] = array
        elif value_type == _STRING:
            values[key] = cursor.string(key)
        else:
            values[key] = _read_scalars(cursor, value_type, 1, key)[0]
    return Metadata(values, offsets, path)


def _read_type(cursor: Cursor, key: str) -> int:
    start = cursor.offset
    value_type = cursor.u32(key)
    if value_type not in _SCALAR_CODES and value_type not in {_STRING, _ARRAY}:
        cursor.fail(f"value type {value_type} is unknown", key, start)
    return value_type


def _read_array(cursor: Cursor, key: str, entries_left: int) -> Sequence[object]:
    start = cursor.offset
    item_type = _read_type(cursor, key)
    if item_type == _ARRAY:
        cursor.fail("arrays of arrays are not read", key, start)
    start = cursor.offset
    count = cursor.u64(key)
    if count > entries_left:
        cursor.fail(f"arrays have at most {MAX_ARRAY_ENTRIES} entries together, this one claims {count}", key, start)
    if item_type == _STRING:
        return cursor.strings(count, key)
    return _read_scalars(cursor, item_type, count, key)


def _read_scalars(cursor: Cursor, value_type: int, count: int, key: str) -> Sequence[object]:
    start = cursor.offset
    values = cursor.scalars(_SCALAR_CODES[value_type], count, key)
    if value_type != _BOOL:
        return values
    if any(value > 1 for value in values):
        cursor.fail("a boolean is neither 0 nor 1", key, start)
    return [bool(value) for value in values]


def _alignment(metadata: Metadata) -> int:
    key = "general.alignment"
    alignment = metadata.integer(key, default=DEFAULT_ALIGNMENT, maximum=MAX_ALIGNMENT)
    if alignment & (alignment - 1):
        metadata.fail(key, f"the alignment must be a power of two, found {alignment}")
    return alignment


def _read_tensor(cursor: Cursor, index: int, alignment: int, path: str) -> TensorInfo:
    """One row of the tensor table; ``offset`` is still relative to the data."""
    name = cursor.name(MAX_TENSOR_NAME_BYTES, f"tensor {index}")
    start = cursor.offset
    num_dimensions = cursor.u32(name)
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        cursor.fail(f"a tensor has 1 to {MAX_DIMENSIONS} dimensions, this one claims {num_dimensions}", name, start)
    dimensions = [cursor.u64(name) for _ in range(num_dimensions)]
    if 0 in dimensions:
        cursor.fail(f"a dimension is 0: {dimensions}", name, start)
    ggml_type = _tensor_type(cursor.u32(name), name, path)
    if dimensions[0] % ggml_type.block_size:
        cursor.fail(
            f"rows of {dimensions[0]} elements are not whole {ggml_type.name} blocks of {ggml_type.block_size}",
            name,
            start,
        )
    start = cursor.offset
    offset = cursor.u64(name)
    if offset % alignment:
        cursor.fail(f"the data offset {offset} is not a multiple of the alignment {alignment}", name, start)
    return TensorInfo(name, tuple(reversed(dimensions)), ggml_type, offset)


def _tensor_type(type_id: int, name: str, path: str) -> GgmlType:
    if type_id in GGML_TYPES:
        return GGML_TYPES[type_id]
    described = UNSUPPORTED_TYPES.get(type_id, f"number {type_id}")
    supported = ", ".join(ggml_type.name for ggml_type in GGML_TYPES.values())
    raise UnsupportedModelError(
        f"{path}: tensor {name!r} is of type {described}, which cannot be read; supported are {supported}"
    )


def _place(tensors: list[TensorInfo], data_start: int, file_size: int | None, path: str) -> dict[str, TensorInfo]:
    """The tensors by name, at offsets from the start of the file, once none overlaps another or leaves the file.

    Args:
        file_size: None: the file may end before its tensors do.
    """
    placed: dict[str, TensorInfo] = {}
    for tensor in tensors:
        if tensor.name in placed:
            raise ModelFileError(path, "two tensors have this name", field=tensor.name)
        offset = data_start + tensor.offset
        if file_size is not None and offset + tensor.num_bytes > file_size:
            raise ModelFileError(
                path,
                f"truncated: the tensor ends at byte {offset + tensor.num_bytes} of a file of {file_size}",
                field=tensor.name,
                offset=offset,
            )
        placed[tensor.name] = replace(tensor, offset=offset)
    for left, right in itertools.pairwise(sorted(placed.values(), key=lambda tensor: tensor.offset)):
        if left.offset + left.num_bytes > right.offset:
            raise ModelFileError(
                path, f"its data overlaps that of {left.name!r}", field=right.name, offset=right.offset
            )
    return placed
