"""The tensors of a folder's safetensors files, by their names there."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import ModelFileError
from layerscale_core.formats.files import map_file
from layerscale_core.formats.fingerprint import fingerprint
from layerscale_core.formats.json_file import read_json_object
from layerscale_core.formats.safetensors.header import TensorInfo, read_header
from layerscale_core.models import DenseMatrix, Matrix

WHOLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
STACKED = (".experts.gate_up_proj", ".experts.down_proj")
"""Ends of the names of tensors [num_experts, cols, rows], whose matrices are read as [rows, cols], as all others."""

MAX_INDEX_BYTES = 32_000_000
MAX_FILES = 1_000


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    data: mmap.mmap
    tensors: Mapping[str, TensorInfo]


class FolderTensors:
    """``layerscale_core.formats.weights.Tensors``: one file, or the several that an index names.

    Raises:
        ModelFileError: a file is missing, corrupt or hostile, or two hold a tensor of the same name.
        UnsupportedModelError: a tensor has a type this build cannot read.
    """

    def __init__(self, folder: Path, *, metadata_only: bool = False) -> None:
        self._folder = folder
        self.metadata_only = metadata_only
        self._files: list[_File] = []
        self._file_of: dict[str, _File] = {}
        weight_map = read_index(folder)
        try:
            for name in sorted(set(weight_map.values())) or [WHOLE_FILE]:
                self._open(folder / name, metadata_only=metadata_only)
            for tensor, name in weight_map.items():
                file = self._file_of.get(tensor)
                if file is None or file.path.name != name:
                    raise ModelFileError(
                        str(folder / name), "the index says that the tensor is here", field=tensor[:80]
                    )
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def total_bytes(self) -> int:
        """Bytes of all files, as long as their headers say."""
        ends = [max((i.offset + i.num_bytes for i in file.tensors.values()), default=0) for file in self._files]
        return sum(max(len(file.data), end) for file, end in zip(self._files, ends, strict=True))

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See ``Tensors``."""
        return {name: _read_shape(name, file.tensors[name].shape) for name, file in self._file_of.items()}

    def num_bytes(self, name: str) -> int:
        """See ``Tensors``."""
        return self._file_of[name].tensors[name].num_bytes

    def info(self, name: str) -> TensorInfo | None:
        """What a header says of a tensor; None where there is no such."""
        file = self._file_of.get(name)
        return file.tensors[name] if file else None

    def error(self, name: str, reason: str) -> ModelFileError:
        """See ``Tensors``."""
        file = self._file_of.get(name)
        if file is None:
            return ModelFileError(str(self._folder), reason, field=name)
        return ModelFileError(str(file.path), reason, field=name, offset=file.tensors[name].offset)

    def rows(self, name: str, start: int, stop: int) -> Matrix:
        """See ``Tensors``."""
        file = self._file_of[name]
        info = file.tensors[name]
        num_cols = _read_shape(name, info.shape)[-1] if info.shape else 1
        if start == stop:
            return DenseMatrix(np.empty((0, num_cols), info.element))
        if _is_turned(name, info.shape):
            entry, row = divmod(start, info.shape[2])
            assert row + stop - start <= info.shape[2], "rows of one entry are read at once"
            offset = info.offset + entry * num_cols * info.shape[2] * info.element.itemsize
            matrix = np.frombuffer(file.data, info.element, num_cols * info.shape[2], offset).reshape(num_cols, -1)
            return DenseMatrix(np.ascontiguousarray(matrix[:, row : row + stop - start].T))
        offset = info.offset + start * num_cols * info.element.itemsize
        values = np.frombuffer(file.data, info.element, (stop - start) * num_cols, offset)
        return DenseMatrix(values.reshape(stop - start, num_cols).copy())

    def array(self, name: str) -> NDArray[Any]:
        """A whole tensor in its shape, in the file's own memory: to be let go before the file is closed."""
        file = self._file_of[name]
        info = file.tensors[name]
        return np.frombuffer(file.data, info.element, math.prod(info.shape), info.offset).reshape(info.shape)

    def fingerprint(self, description: bytes) -> str:
        """What identifies the files, and the description that stands beside them."""
        return fingerprint("safetensors", ((f.data, f.tensors.values()) for f in self._files), description)

    def drop_cache(self) -> None:
        """See ``Tensors``."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for file in self._files:
                file.data.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Unmap the files. Idempotent."""
        for file in self._files:
            with contextlib.suppress(BufferError):  # an error on its way out holds what was read; its end unmaps it
                file.data.close()

    def _open(self, path: Path, *, metadata_only: bool) -> None:
        data = map_file(path)
        try:
            file = _File(path, data, read_header(data, str(path), metadata_only=metadata_only))
        except BaseException:
            data.close()
            raise
        self._files.append(file)
        for name in file.tensors:
            if name in self._file_of:
                raise ModelFileError(str(path), f"{self._file_of[name].path.name} holds it too", field=name[:80])
            self._file_of[name] = file


def _is_turned(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith(STACKED) and len(shape) == 3


def _read_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions that a tensor is read with."""
    return (shape[0], shape[2], shape[1]) if _is_turned(name, shape) else shape


def read_index(folder: Path) -> dict[str, str]:
    """Tensor to file; empty where there is no index.

    Raises:
        ModelFileError: the index is corrupt, or names what is no file of this folder.
    """
    path = folder / INDEX_FILE
    if not path.exists():
        return {}
    weight_map = read_json_object(path, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(str(path), "expected an object with entries", field="weight_map")
    for name in set(map(str, weight_map.values())):
        if Path(name).name != name or not name.endswith(".safetensors") or "\0" in name:
            raise ModelFileError(str(path), "a file's name is not that of a .safetensors file here", field="weight_map")
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelFileError(str(path), "a file's name is not text", field="weight_map")
    if len(set(weight_map.values())) > MAX_FILES:
        raise ModelFileError(str(path), f"more than {MAX_FILES} files", field="weight_map")
    return weight_map
