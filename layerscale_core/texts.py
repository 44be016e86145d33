"""Many short texts in one piece of memory: a vocabulary as Python's strings takes eight times as much."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray


class PackedBytes(Sequence[bytes]):
    """Short pieces of bytes by index, each made when it is asked for.

    Attributes:
        data: all of them, one behind the other.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        data, bounds = bytearray(), array("I", [0])
        for piece in pieces:
            data += piece
            bounds.append(len(data))
        self.data = bytes(data)
        self._bounds = bounds

    @property
    def starts(self) -> NDArray[np.uint32]:
        """Where each piece begins."""
        return np.frombuffer(self._bounds, np.uint32)[:-1]

    @property
    def lengths(self) -> NDArray[np.uint32]:
        """Bytes of each piece."""
        bounds = np.frombuffer(self._bounds, np.uint32)
        return bounds[1:] - bounds[:-1]

    def joined(self, start: int, stop: int) -> bytes:
        """Some neighbours in one piece."""
        return self.data[self._bounds[start] : self._bounds[stop]]

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[bytes]:
        data = self.data
        for start, stop in pairwise(self._bounds):
            yield data[start:stop]

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        if not 0 <= index < len(self._bounds) - 1:
            index = range(len(self))[index]  # from the end, or an error
        return self.data[self._bounds[index] : self._bounds[index + 1]]


class Texts(Sequence[str]):
    """Texts by index. Bytes that are not UTF-8 are lone surrogates (``surrogateescape``)."""

    def __init__(self, encoded: PackedBytes) -> None:
        self.encoded = encoded

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Pack texts."""
        return cls(PackedBytes(map(_encode, texts)))

    def __len__(self) -> int:
        return len(self.encoded)

    def __iter__(self) -> Iterator[str]:
        return map(_decode, self.encoded)

    def are_unicode(self) -> bool:
        """Whether each text is, so that none holds a surrogate."""
        firsts = np.frombuffer(self.encoded.data, np.uint8)[self.encoded.starts[self.encoded.lengths > 0]]
        if (firsts & 0xC0 == 0x80).any():  # it goes on with the character of another
            return False
        try:
            self.encoded.data.decode()
        except UnicodeDecodeError:
            return False
        return True

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [_decode(data) for data in self.encoded[index]]
        return _decode(self.encoded[index])


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
