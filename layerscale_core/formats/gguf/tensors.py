"""The tensors of a model's files, by their names there."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import ModelFileError
from layerscale_core.formats.fingerprint import fingerprint
from layerscale_core.formats.gguf.parts import GgufPart
from layerscale_core.formats.gguf.reader import TensorInfo
from layerscale_core.models import Matrix


class GgufTensors:
    """``layerscale_core.formats.weights.Tensors``, read on demand. Nothing it returns keeps a file mapped.

    Raises:
        ModelFileError: two parts hold a tensor of the same name.
    """

    def __init__(self, parts: Sequence[GgufPart]) -> None:
        self._parts = parts
        self._part_of: dict[str, GgufPart] = {}
        for part in parts:
            for name, info in part.tensors.items():
                if name in self._part_of:
                    reason = f"{self._part_of[name].path.name} holds it too"
                    raise ModelFileError(str(part.path), reason, field=name, offset=info.offset)
                self._part_of[name] = part

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Every tensor, by name."""
        return {name: part.tensors[name] for name, part in self._part_of.items()}

    def is_present(self, name: str) -> bool:
        """Whether the file goes on to the end of a tensor, as every file does that was not read for its metadata."""
        part = self._part_of[name]
        info = part.tensors[name]
        return info.offset + info.num_bytes <= len(part.data)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See ``Tensors``."""
        return {name: info.shape for name, info in self.infos.items()}

    def num_bytes(self, name: str) -> int:
        """See ``Tensors``."""
        return self._part_of[name].tensors[name].num_bytes

    def error(self, name: str, reason: str) -> ModelFileError:
        """See ``Tensors``."""
        part = self._part_of.get(name)
        if part is None:
            return ModelFileError(str(self._parts[0].path), reason, field=name)
        return ModelFileError(str(part.path), reason, field=name, offset=part.tensors[name].offset)

    def rows(self, name: str, start: int, stop: int) -> Matrix:
        """See ``Tensors``."""
        part = self._part_of[name]
        info = part.tensors[name]
        row_bytes = info.shape[-1] // info.type.block_size * info.type.block_bytes
        if start == stop:
            return info.type.read(np.empty((0, row_bytes), np.uint8))
        raw = np.frombuffer(part.data, np.uint8, (stop - start) * row_bytes, info.offset + start * row_bytes)
        return info.type.read(raw.reshape(stop - start, row_bytes))

    def vector(self, name: str) -> NDArray[np.float32]:
        """A tensor of one dimension, of whatever type, as float32."""
        return self.rows(name, 0, 1).dequantize().reshape(-1)

    def fingerprint(self) -> str:
        """What identifies the files."""
        return fingerprint("gguf", ((part.data, part.tensors.values()) for part in self._parts))

    def drop_cache(self) -> None:
        """Let the system forget the pages that were read, where it can be told to."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for part in self._parts:
                part.data.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Unmap the files. Idempotent."""
        for part in self._parts:
            part.data.close()
