"""Bounded reads from the header of a mapped file: nothing is touched before it is known to lie inside."""

from __future__ import annotations

import mmap
import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Any, NoReturn

from layerscale_core.errors import ModelFileError
from layerscale_core.texts import PackedBytes, Texts

MAX_HEADER_BYTES = 64 * 2**20
"""Headers of published models stay under 20 MB, nearly all of it vocabulary."""

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_MAX_SHOWN_CHARS = 80


class Cursor:
    """A place in the header that moves forward with each read.

    Every read takes the name of the field it is for, which its error names. Python's integers do not overflow, so sums
    and products of hostile lengths are compared with the file's size as they are.
    """

    def __init__(self, data: mmap.mmap | bytes, path: str) -> None:
        self.offset = 0
        self._data = data
        self._path = path
        self._end = min(len(data), MAX_HEADER_BYTES)

    @property
    def remaining(self) -> int:
        """Bytes of header there can still be."""
        return self._end - self.offset

    def fail(self, reason: str, field: str, offset: int | None = None) -> NoReturn:
        """Raise the error that names the field and the offset, by default the current one."""
        shown = field if len(field) <= _MAX_SHOWN_CHARS else field[: _MAX_SHOWN_CHARS - 1] + "…"
        raise ModelFileError(self._path, reason, field=shown, offset=self.offset if offset is None else offset)

    def take(self, num_bytes: int, field: str) -> int:
        """Move past ``num_bytes`` and return where they start."""
        if num_bytes > self.remaining:
            if num_bytes <= len(self._data) - self.offset:
                self.fail(f"the header exceeds {MAX_HEADER_BYTES} bytes", field)
            self.fail(f"truncated: {num_bytes} bytes are needed, {self.remaining} are left", field)
        start = self.offset
        self.offset = start + num_bytes
        return start

    def u32(self, field: str) -> int:
        """An unsigned 32-bit integer."""
        value: int = _U32.unpack_from(self._data, self.take(4, field))[0]
        return value

    def u64(self, field: str) -> int:
        """An unsigned 64-bit integer."""
        value: int = _U64.unpack_from(self._data, self.take(8, field))[0]
        return value

    def raw(self, num_bytes: int, field: str) -> bytes:
        """Bytes as they are."""
        start = self.take(num_bytes, field)
        return self._data[start : start + num_bytes]

    def name(self, max_bytes: int, field: str) -> str:
        """The name of a key or a tensor: not empty, at most ``max_bytes``, valid UTF-8."""
        start = self.offset
        length = self.u64(field)
        if not 0 < length <= max_bytes:
            self.fail(f"a name has 1 to {max_bytes} bytes, this one claims {length}", field, start)
        try:
            return self.raw(length, field).decode()
        except UnicodeDecodeError:
            self.fail("the name is not valid UTF-8", field, start)

    def string(self, field: str) -> str:
        """Text; see ``strings`` for bytes that are not UTF-8."""
        return self.raw(self.u64(field), field).decode("utf-8", "surrogateescape")

    def scalars(self, code: str, count: int, field: str) -> array[Any]:
        """Numbers of one ``array`` type code."""
        values = array(code)
        values.frombytes(self.raw(count * values.itemsize, field))
        if sys.byteorder == "big":
            values.byteswap()
        return values

    def strings(self, count: int, field: str) -> Texts:
        """Texts, one after the other.

        A token may hold bytes that are not UTF-8. They become lone surrogates, so that the bytes can be had back and
        two different tokens stay different.
        """
        return Texts(PackedBytes(self._strings(count, field)))

    def _strings(self, count: int, field: str) -> Iterator[bytes]:
        """The loop that a vocabulary of 250,000 tokens passes through."""
        data, end, unpack = self._data, self._end, _U64.unpack_from
        offset = self.offset
        for index in range(count):
            start = offset + 8
            stop = start + unpack(data, offset)[0] if start <= end else start
            if stop > end:
                self.offset = offset
                self.string(f"{field}[{index}]")  # fails, and says how
            yield data[start:stop]
            offset = stop
        self.offset = offset
