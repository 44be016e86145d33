"""Many short texts in one piece of memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import overload


class Texts(Sequence[str]):
    """Texts by index, each made when it is asked for: a vocabulary as strings takes eight times the memory."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._data = _encode("".join(texts))
        self._bounds = array("I", accumulate(map(_num_bytes, texts), initial=0))

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        if not 0 <= index < len(self._bounds) - 1:
            index = range(len(self))[index]  # from the end, or an error
        start, stop = self._bounds[index], self._bounds[index + 1]
        return self._data[start:stop].decode("utf-8", "surrogatepass")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(_encode(text))
