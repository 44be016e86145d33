"""Weights that several tensors of a folder hold together: codes, scales, zero points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats.safetensors.header import FLOATS
from layerscale_core.formats.safetensors.tensors import FolderTensors
from layerscale_core.models import DenseMatrix, Matrix


class PackedWeight(Protocol):
    """A weight matrix in the tensors of one module."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The tensors that hold it, the codes first."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """[rows = out, cols = in] of the weight."""
        ...

    def rows(self, start: int, stop: int) -> Matrix:
        """Rows of it in an internal layout, fresh; nothing of the file is touched for no rows."""
        ...


class Scheme(Protocol):
    """How a checkpoint's weights are quantised."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """Ends of the names of tensors without which the weights are the same."""
        ...

    def weights(self, tensors: FolderTensors) -> Mapping[str, PackedWeight]:
        """Every packed weight, by the name that the plain one would have.

        Which are packed is read off the tensors: lists of modules in a configuration are in part regular expressions
        and names of classes, whose meaning differs from one tool to the next, and a file's expression is nothing to
        evaluate.

        Raises:
            ModelFileError: a tensor is missing, or of another shape or type.
            UnsupportedModelError: a weight that maps onto no internal layout.
        """
        ...


class PackedTensors:
    """``layerscale_core.formats.weights.Tensors`` in which a packed weight is one tensor.

    Args:
        scheme: None where nothing is packed.
    """

    def __init__(self, tensors: FolderTensors, scheme: Scheme | None) -> None:
        self._tensors = tensors
        self._weights = scheme.weights(tensors) if scheme else {}
        self._hidden = {part for weight in self._weights.values() for part in weight.parts}
        if scheme:
            self._hidden |= {name for name in tensors.shapes() if name.endswith(scheme.ignored)}

    def check_types(self, names: Iterable[str]) -> None:
        """Refuse weights that are neither packed nor floats.

        Raises:
            UnsupportedModelError: such a weight.
        """
        for name in names:
            info = self._tensors.info(name)
            if info is not None and info.type not in FLOATS and name not in self._weights:
                reason = f"of type {info.type!r}, and quantization_config does not say what it means"
                raise UnsupportedModelError(f"{self._tensors.path}: tensor {name!r} is {reason}")

    def zero_biases(self) -> frozenset[str]:
        """Biases of packed weights that add nothing: AutoGPTQ writes one for every module, whatever the model has.

        Where only headers were read, all of them.
        """
        names = {name.removesuffix("weight") + "bias" for name in self._weights}
        there = {name for name in names if self._tensors.info(name) is not None}
        return frozenset(name for name in there if self._tensors.metadata_only or not self._tensors.array(name).any())

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See ``Tensors``."""
        plain = {name: shape for name, shape in self._tensors.shapes().items() if name not in self._hidden}
        return plain | {name: weight.shape for name, weight in self._weights.items()}

    def num_bytes(self, name: str) -> int:
        """See ``Tensors``."""
        parts = self._weights[name].parts if name in self._weights else (name,)
        return sum(map(self._tensors.num_bytes, parts))

    def error(self, name: str, reason: str) -> ModelFileError:
        """See ``Tensors``."""
        return self._tensors.error(self._weights[name].parts[0] if name in self._weights else name, reason)

    def rows(self, name: str, start: int, stop: int) -> Matrix:
        """See ``Tensors``."""
        return (self._weights[name] if name in self._weights else _Plain(self._tensors, name)).rows(start, stop)

    def drop_cache(self) -> None:
        """See ``Tensors``."""
        self._tensors.drop_cache()


@dataclass(frozen=True, slots=True)
class _Plain:
    tensors: FolderTensors
    name: str

    def rows(self, start: int, stop: int) -> Matrix:
        return self.tensors.rows(self.name, start, stop)


@dataclass(frozen=True, slots=True)
class Module:
    """The tensors of one linear layer, by what follows the layer's name."""

    tensors: FolderTensors
    name: str

    def full(self, part: str) -> str:
        """A tensor's whole name."""
        return f"{self.name}.{part}"

    def has(self, part: str) -> bool:
        """Whether there is such a tensor."""
        return self.tensors.info(self.full(part)) is not None

    def type_of(self, part: str) -> str | None:
        """The type of a tensor; None where there is no such."""
        info = self.tensors.info(self.full(part))
        return info.type if info else None

    def fail(self, part: str, reason: str) -> NoReturn:
        """Raise the error that names a tensor."""
        raise self.tensors.error(self.full(part), reason)

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error that says what of the module cannot be read."""
        raise UnsupportedModelError(f"{self.tensors.path}: {self.name[:80]!r}: {reason}")

    def shape(self, part: str, *types: str) -> tuple[int, ...]:
        """The shape of a tensor that must be there in one of these types."""
        info = self.tensors.info(self.full(part))
        if info is None:
            self.fail(part, "the tensor is missing")
        if info.type not in types:
            self.fail(part, f"the tensor is of type {info.type}, not {' or '.join(types)}")
        return info.shape

    def matrix_shape(self, part: str, *types: str) -> tuple[int, int]:
        """The same for a tensor of two dimensions."""
        shape = self.shape(part, *types)
        if len(shape) != 2:
            self.fail(part, f"the tensor has the shape {list(shape)}, and should have two dimensions")
        return shape[0], shape[1]

    def expect(self, part: str, shape: tuple[int, ...], *types: str) -> None:
        """Refuse a tensor of another shape."""
        found = self.shape(part, *types)
        if found != shape:
            self.fail(part, f"the tensor has the shape {list(found)}, quantization_config asks for {list(shape)}")

    def array(self, part: str) -> NDArray[Any]:
        """A whole tensor, in the file's own memory."""
        return self.tensors.array(self.full(part))

    def floats(self, part: str, at: Any = ...) -> NDArray[np.float32]:
        """A tensor in floats, or what an index takes of it."""
        return DenseMatrix(self.array(part)[at]).dequantize()


def modules(tensors: FolderTensors, part: str, element: str | None = None) -> list[Module]:
    """The modules that have such a tensor, of such a type if one is given."""
    ending = f".{part}"
    found = [Module(tensors, name.removesuffix(ending)) for name in tensors.shapes() if name.endswith(ending)]
    return [module for module in found if element is None or module.type_of(part) == element]
