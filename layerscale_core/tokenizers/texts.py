"""Many short texts in one piece of memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload


class Texts(Sequence[str]):
    """Texts by index, each made when it is asked for: a vocabulary as strings takes eight times the memory."""

    def __init__(self, texts: Iterable[str]) -> None:
        data, bounds = bytearray(), array("I", [0])
        for text in texts:
            data += text.encode("utf-8", "surrogatepass")
            bounds.append(len(data))
        self._data, self._bounds = bytes(data), bounds

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        indices = range(len(self))[index]
        if isinstance(indices, range):
            return [self[each] for each in indices]
        start, stop = self._bounds[indices], self._bounds[indices + 1]
        return self._data[start:stop].decode("utf-8", "surrogatepass")
