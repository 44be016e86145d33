"""GGUF files byte by byte, so that a test can lie about any count, length or offset."""

from __future__ import annotations

import struct
from collections.abc import Sequence

STRING, ARRAY = 8, 9
U8, I8, U16, I16, U32, I32, F32, BOOL, U64, I64, F64 = 0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes, *, claimed_length: int | None = None) -> bytes:
    """A string, possibly with a length that is not its own."""
    data = value.encode() if isinstance(value, str) else value
    return u64(len(data) if claimed_length is None else claimed_length) + data


def entry(key: str | bytes, value_type: int, value: bytes) -> bytes:
    """One key of the metadata with an encoded value."""
    return text(key) + u32(value_type) + value


def array(item_type: int, count: int, items: bytes) -> bytes:
    """An array's value, possibly with a count that is not its own."""
    return u32(item_type) + u64(count) + items


def tensor(
    name: str | bytes = "t",
    dimensions: Sequence[int] = (32,),
    *,
    type_id: int = 0,
    offset: int = 0,
    claimed_dimensions: int | None = None,
) -> bytes:
    """One row of the tensor table; ``dimensions`` with the fastest first, as in the file."""
    count = len(dimensions) if claimed_dimensions is None else claimed_dimensions
    return text(name) + u32(count) + b"".join(u64(size) for size in dimensions) + u32(type_id) + u64(offset)


def gguf_bytes(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes | None = None,
    *,
    magic: bytes = b"GGUF",
    version: bytes = u32(3),
    num_tensors: int | None = None,
    num_keys: int | None = None,
) -> bytes:
    """A file; with ``data``, padded to 32 bytes and followed by it."""
    counts = u64(len(tensors) if num_tensors is None else num_tensors)
    counts += u64(len(entries) if num_keys is None else num_keys)
    header = magic + version + counts + b"".join(entries) + b"".join(tensors)
    return header if data is None else header + bytes(-len(header) % 32) + data
