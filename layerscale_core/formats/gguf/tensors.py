"""The tensors of a mapped file, by their names in it."""

from __future__ import annotations

import mmap
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import ModelFileError
from layerscale_core.formats.fingerprint import fingerprint
from layerscale_core.formats.gguf.reader import TensorInfo
from layerscale_core.models import Matrix


class GgufTensors:
    """``layerscale_core.formats.weights.Tensors``, read on demand. Nothing it returns keeps the file mapped."""

    def __init__(self, data: mmap.mmap, infos: Mapping[str, TensorInfo], path: str) -> None:
        self.infos = infos
        self._data = data
        self._path = path

    def is_present(self, name: str) -> bool:
        """Whether the file goes on to the end of a tensor, as every file does that was not read for its metadata."""
        info = self.infos[name]
        return info.offset + info.num_bytes <= len(self._data)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See ``Tensors``."""
        return {name: info.shape for name, info in self.infos.items()}

    def num_bytes(self, name: str) -> int:
        """See ``Tensors``."""
        return self.infos[name].num_bytes

    def error(self, name: str, reason: str) -> ModelFileError:
        """See ``Tensors``."""
        info = self.infos.get(name)
        return ModelFileError(self._path, reason, field=name, offset=info.offset if info else None)

    def rows(self, name: str, start: int, stop: int) -> Matrix:
        """See ``Tensors``."""
        info = self.infos[name]
        row_bytes = info.shape[-1] // info.type.block_size * info.type.block_bytes
        if start == stop:
            return info.type.read(np.empty((0, row_bytes), np.uint8))
        raw = np.frombuffer(self._data, np.uint8, (stop - start) * row_bytes, info.offset + start * row_bytes)
        return info.type.read(raw.reshape(stop - start, row_bytes))

    def vector(self, name: str) -> NDArray[np.float32]:
        """A tensor of one dimension, of whatever type, as float32."""
        return self.rows(name, 0, 1).dequantize().reshape(-1)

    def fingerprint(self) -> str:
        """What identifies the file."""
        return fingerprint("gguf", [(self._data, self.infos.values())])

    def drop_cache(self) -> None:
        """Let the system forget the pages that were read, where it can be told to."""
        if hasattr(self._data, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._data.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Unmap the file. Idempotent."""
        self._data.close()
