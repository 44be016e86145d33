"""The header of a safetensors file, every claim checked before it is used.

Layout: the header's length as a little-endian u64, the header in JSON (tensor name to type, shape and place), then the
tensors' data without gap or overlap.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats.json_file import parse_json_object

MAX_HEADER_BYTES = 16_000_000
MAX_TENSORS = 2**18
MAX_DIMENSIONS = 8
MAX_DIMENSION = 2**40

FLOATS = ("F32", "F16", "BF16")
"""Types of weights that are not quantised."""

ELEMENT_TYPES: dict[str, DTypeLike] = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F8_E4M3": "u1",
    "I8": "i1",
    "I32": "<i4",
    "I64": "<i8",
}
"""Types that can be read; those that numpy does not have by their bit pattern."""

_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies in its file.

    Attributes:
        type: as the header names it.
        offset: from the start of the file.
    """

    shape: tuple[int, ...]
    type: str
    offset: int

    @property
    def element(self) -> np.dtype[Any]:
        """What holds one of its elements."""
        return np.dtype(ELEMENT_TYPES[self.type])

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * self.element.itemsize


def read_header(data: mmap.mmap | bytes, path: str, *, metadata_only: bool = False) -> dict[str, TensorInfo]:
    """The tensors of a file, by name.

    Args:
        metadata_only: the tensors' data may be missing.

    Raises:
        ModelFileError: truncated, corrupt or hostile.
        UnsupportedModelError: a tensor has a type this build cannot read.
    """
    header, data_start = _read_json(data, path)
    header.pop(_METADATA, None)
    if len(header) > MAX_TENSORS:
        raise ModelFileError(path, f"it claims {len(header)} tensors, more than the limit of {MAX_TENSORS}")
    tensors = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _begin_of(item[1])):
        tensors[name] = info = _Entry(path, name).read(entry, data_start, expected_begin=end)
        end = info.offset + info.num_bytes - data_start
    if not metadata_only and data_start + end != len(data):
        reason = f"truncated or too long: its tensors end at byte {data_start + end}, the file at {len(data)}"
        raise ModelFileError(path, reason)
    return tensors


def _read_json(data: mmap.mmap | bytes, path: str) -> tuple[dict[str, Any], int]:
    if len(data) < _LENGTH_BYTES:
        raise ModelFileError(path, f"truncated: {len(data)} bytes are no header", field="header length", offset=0)
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        reason = f"it claims a header of {length} bytes, more than the limit of {MAX_HEADER_BYTES}"
        raise ModelFileError(path, reason, field="header length", offset=0)
    if length > len(data) - _LENGTH_BYTES:
        reason = f"truncated: it claims a header of {length} bytes, {len(data) - _LENGTH_BYTES} are left"
        raise ModelFileError(path, reason, field="header length", offset=0)
    end = _LENGTH_BYTES + length
    return parse_json_object(data[_LENGTH_BYTES:end], path, "header"), end


def _begin_of(entry: object) -> int:
    """Where an entry says that its data begins, to put entries in order; those that are wrong come first."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    begin = offsets[0] if isinstance(offsets, list) and offsets else None
    return begin if type(begin) is int else -1


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor's entry in the header."""

    path: str
    name: str

    def fail(self, reason: str) -> NoReturn:
        shown = self.name.encode("utf-8", "replace").decode()[:80]
        raise ModelFileError(self.path, reason, field=shown)

    def read(self, entry: object, data_start: int, expected_begin: int) -> TensorInfo:
        if not isinstance(entry, dict) or entry.keys() != _FIELDS:
            self.fail("an entry has dtype, shape and data_offsets")
        shape = self._integers(entry["shape"], "shape", MAX_DIMENSION)
        if len(shape) > MAX_DIMENSIONS or 0 in shape:
            self.fail(f"a tensor has at most {MAX_DIMENSIONS} dimensions, none of them 0")
        offsets = self._integers(entry["data_offsets"], "data_offsets", 2**62)
        if len(offsets) != 2 or offsets[0] != expected_begin:
            self.fail(f"its data must begin at {expected_begin}, without gap or overlap")
        info = TensorInfo(tuple(shape), self._type(entry["dtype"]), data_start + offsets[0])
        if offsets[1] - offsets[0] != info.num_bytes:
            self.fail(f"its shape takes {info.num_bytes} bytes, its offsets {offsets[1] - offsets[0]}")
        return info

    def _integers(self, values: object, field: str, maximum: int) -> list[int]:
        if not isinstance(values, list) or not all(type(value) is int and 0 <= value <= maximum for value in values):
            self.fail(f"{field} is not a list of whole numbers")
        return values

    def _type(self, name: object) -> str:
        if not isinstance(name, str):
            self.fail("dtype is not text")
        if name not in ELEMENT_TYPES:
            raise UnsupportedModelError(
                f"{self.path}: tensor {self.name[:80]!r} is of type {name[:16]!r}, which cannot be read; supported "
                f"are {', '.join(ELEMENT_TYPES)}"
            )
        return name
