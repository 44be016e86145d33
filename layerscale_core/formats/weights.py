"""A model's weights under their canonical names, wherever in a file's tensors they lie."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.models import Matrix, ModelSpec
from layerscale_core.models.spec import Shapes, weight_shapes


class Tensors(Protocol):
    """The tensors of a model's file or files, by their names there."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's dimensions, the slowest first."""
        ...

    def num_bytes(self, name: str) -> int:
        """Bytes on disk."""
        ...

    def error(self, name: str, reason: str) -> ModelFileError:
        """The error that names a tensor, and where it stands."""
        ...

    def rows(self, name: str, start: int, stop: int) -> Matrix:
        """Rows of a tensor, whose dimensions but the last are counted as one; nothing is touched for no rows."""
        ...

    def drop_cache(self) -> None:
        """Let the system forget what was read."""
        ...


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file, and which weights it holds, one after the other.

    Attributes:
        num_entries: of a further, slowest dimension, each of as many of the weights; 0: there is none. The rows of the
            weights follow one another.
        offset: added to every element of a vector.
        factor: on every element of a vector, after that.
    """

    name: str
    weights: tuple[str, ...]
    num_entries: int = 0
    offset: float = 0.0
    factor: float = 1.0

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The dimensions that the tensor must have, given those of all weights."""
        num_rows, cols = sum(shapes[weight][0] for weight in self.weights), shapes[self.weights[0]][1:]
        return (self.num_entries, num_rows // self.num_entries, *cols) if self.num_entries else (num_rows, *cols)


@dataclass(frozen=True, slots=True)
class _Place:
    tensor: StoredTensor
    first_row: int


class StoredWeights:
    """A ``WeightSource`` over tensors.

    Args:
        stored: where each weight of the model lies.
        other: tensors that are no weights and may be there.
        ones: weights that no tensor holds, since all their elements are 1.

    Raises:
        ModelFileError: a weight is missing or has another shape.
        UnsupportedModelError: there is a tensor that the description has no place for, so that computing without it
            would be computing another model.
    """

    def __init__(
        self,
        tensors: Tensors,
        spec: ModelSpec,
        stored: Iterable[StoredTensor],
        other: Iterable[str],
        path: str,
        *,
        ones: Collection[str] = (),
    ) -> None:
        self._tensors = tensors
        self._ones = ones
        self._shapes = weight_shapes(spec)
        self._places: dict[str, _Place] = {}
        found = tensors.shapes()
        unknown = set(found) - set(other)
        for tensor in stored:
            self._check(tensor, found)
            self._place(tensor)
            unknown.discard(tensor.name)
        if unknown:
            raise UnsupportedModelError(
                f"{path}: {spec.architecture} models with a tensor {min(unknown)!r} cannot be run yet"
            )

    def names(self) -> Sequence[str]:
        """See ``WeightSource``."""
        return tuple(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """See ``WeightSource``."""
        return self._shapes[name]

    def stored_bytes(self, name: str) -> int:
        """See ``WeightSource``."""
        if name in self._ones:
            return 0
        tensor = self._places[name].tensor
        share = math.prod(self._shapes[name]) / math.prod(tensor.shape(self._shapes))
        return round(self._tensors.num_bytes(tensor.name) * share)

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        """See ``WeightSource``."""
        place = self._places[name]
        start, stop, _ = slice(start, stop).indices(self._shapes[name][0])
        return self._tensors.rows(place.tensor.name, place.first_row + start, place.first_row + max(start, stop))

    def vector(self, name: str) -> NDArray[np.float32]:
        """See ``WeightSource``."""
        (size,) = self._shapes[name]
        if name in self._ones:
            return np.ones(size, np.float32)
        place = self._places[name]
        whole = self._tensors.rows(place.tensor.name, 0, 1).dequantize().reshape(-1)
        values: NDArray[np.float32] = whole[place.first_row : place.first_row + size]
        return (values + np.float32(place.tensor.offset)) * np.float32(place.tensor.factor)

    def drop_cache(self) -> None:
        """See ``WeightSource``."""
        self._tensors.drop_cache()

    def _check(self, tensor: StoredTensor, found: Mapping[str, tuple[int, ...]]) -> None:
        if tensor.name not in found:
            raise self._tensors.error(tensor.name, "the tensor is missing")
        shape, expected = found[tensor.name], tensor.shape(self._shapes)
        if shape != expected:
            reason = f"the tensor has the shape {list(shape)}, the metadata asks for {list(expected)}"
            raise self._tensors.error(tensor.name, reason)

    def _place(self, tensor: StoredTensor) -> None:
        first_row = 0
        for weight in tensor.weights:
            self._places[weight] = _Place(tensor, first_row)
            first_row += self._shapes[weight][0]
