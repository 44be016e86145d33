"""The tensors of a mapped file, by their names in it."""

from __future__ import annotations

import mmap
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from layerscale_core.formats.gguf.fingerprint import fingerprint
from layerscale_core.formats.gguf.reader import TensorInfo
from layerscale_core.models import Matrix


class GgufTensors:
    """Reads tensors on demand. Nothing it returns keeps the file mapped."""

    def __init__(self, data: mmap.mmap, infos: Mapping[str, TensorInfo]) -> None:
        self.infos = infos
        self._data = data

    def is_present(self, name: str) -> bool:
        """Whether the file goes on to the end of a tensor, as every file does that was not read for its metadata."""
        info = self.infos[name]
        return info.offset + info.num_bytes <= len(self._data)

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        """Rows ``[start, stop)`` of a tensor of two dimensions; bounds mean what they mean in a slice.

        Raises:
            KeyError: no such tensor.
        """
        info = self.infos[name]
        num_rows, num_cols = info.shape
        start, stop, _ = slice(start, stop).indices(num_rows)
        return self._read(info, start, max(start, stop), num_cols)

    def vector(self, name: str) -> NDArray[np.float32]:
        """A tensor of one dimension, of whatever type, as float32.

        Raises:
            KeyError: no such tensor.
        """
        info = self.infos[name]
        (num_cols,) = info.shape
        return self._read(info, 0, 1, num_cols).dequantize().reshape(num_cols)

    def fingerprint(self) -> str:
        """What identifies the file."""
        return fingerprint(self._data, self.infos.values())

    def drop_cache(self) -> None:
        """Let the system forget the pages that were read, where it can be told to."""
        if hasattr(self._data, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._data.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Unmap the file. Idempotent."""
        self._data.close()

    def _read(self, info: TensorInfo, start: int, stop: int, num_cols: int) -> Matrix:
        row_bytes = num_cols // info.type.block_size * info.type.block_bytes
        if start == stop:
            return info.type.read(np.empty((0, row_bytes), np.uint8))
        raw = np.frombuffer(self._data, np.uint8, (stop - start) * row_bytes, info.offset + start * row_bytes)
        return info.type.read(raw.reshape(stop - start, row_bytes))
