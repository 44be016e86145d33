"""A model whose weights are quantised as they are read, whatever format its file is of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.models import DenseMatrix, Matrix, ModelSpec, QuantizedMatrix
from layerscale_core.models import spec as names
from layerscale_core.models.quantize import GROUP_SIZE, Quantization, to_signed, to_unsigned
from layerscale_core.specs.model_format import ModelFile, WeightSource
from layerscale_core.specs.tokenizer import Tokenizer

_ELEMENTS_AT_ONCE = 1 << 20
"""Bounds the floats in memory, some thirty bytes for each of these, beside the codes that are kept."""

_INT4_BITS = {names.EMBEDDING: 8, names.OUTPUT: 8, names.KEY: 6, names.VALUE: 6, names.DOWN: 6}
"""Bits of weights that 4 are too few for: an embedding's error goes into every layer and a head's into the logits as it
is; keys and values are few, and every query head of a group reads the same; what goes through ``down`` has outliers."""


def quantized(file: ModelFile, quantization: Quantization) -> ModelFile:
    """The model with every matrix in floats quantised, or the model itself where none is to be.

    Raises:
        UnsupportedModelError: there is no such matrix, so that nothing would change.
    """
    if quantization is Quantization.NONE:
        return file
    weights = QuantizedWeights(file.weights, quantization)
    if not weights.changes_any():
        raise UnsupportedModelError(
            f"--quantization {quantization}: no weights of {file.name} are in floats, and those that are quantised "
            "stay as they are; leave it out"
        )
    return _QuantizedModelFile(file, weights)


class WeightsOver:
    """A ``WeightSource`` that is another, for those that change something of it."""

    def __init__(self, weights: WeightSource) -> None:
        self._weights = weights

    def names(self) -> Sequence[str]:
        """See ``WeightSource``."""
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """See ``WeightSource``."""
        return self._weights.shape(name)

    def stored_bytes(self, name: str) -> int:
        """See ``WeightSource``."""
        return self._weights.stored_bytes(name)

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        """See ``WeightSource``."""
        return self._weights.matrix(name, start, stop)

    def vector(self, name: str) -> NDArray[np.float32]:
        """See ``WeightSource``."""
        return self._weights.vector(name)

    def drop_cache(self) -> None:
        """See ``WeightSource``."""
        self._weights.drop_cache()


class QuantizedWeights(WeightsOver):
    """Another's weights, whose matrices in floats it quantises, some rows at a time.

    Left as they are: codes, which would only lose; a router, which is small and decides alone; rows that do not divide
    into groups.
    """

    def __init__(self, weights: WeightSource, quantization: Quantization) -> None:
        super().__init__(weights)
        self.quantization = quantization

    def changes_any(self) -> bool:
        """Whether any matrix is quantised."""
        return any(self._changes(name) for name in self.names())

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        """See ``WeightSource``."""
        if not self._changes(name):
            return super().matrix(name, start, stop)
        rows, cols = self.shape(name)
        start, stop, _ = slice(start, stop).indices(rows)
        step = max(1, _ELEMENTS_AT_ONCE // cols)
        bounds = [(first, min(first + step, stop)) for first in range(start, stop, step)]
        return _joined([self._quantize(name, *rows) for rows in bounds or [(start, start)]])

    def _changes(self, name: str) -> bool:
        shape = self.shape(name)
        if len(shape) != 2 or shape[1] % GROUP_SIZE or names.is_router(name):
            return False
        return isinstance(self._weights.matrix(name, 0, 0), DenseMatrix)

    def _quantize(self, name: str, start: int, stop: int) -> QuantizedMatrix:
        values = self._weights.matrix(name, start, stop).dequantize()
        bits = 8 if self.quantization is Quantization.INT8 else _INT4_BITS.get(name.rpartition(".")[2], 4)
        return to_unsigned(values) if bits == 4 else to_signed(values, bits)


class _QuantizedModelFile:
    """A ``ModelFile`` over another, with other weights; the fingerprint is its own."""

    def __init__(self, file: ModelFile, weights: QuantizedWeights) -> None:
        self._file = file
        self._weights = weights

    @property
    def name(self) -> str:
        return self._file.name

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    @property
    def fingerprint(self) -> str:
        return f"{self._file.fingerprint} as {self._weights.quantization}"

    @property
    def spec(self) -> ModelSpec:
        return self._file.spec

    @property
    def weights(self) -> WeightSource:
        return self._weights

    @property
    def chat_template(self) -> str | None:
        return self._file.chat_template

    def make_tokenizer(self) -> Tokenizer:
        return self._file.make_tokenizer()

    def close(self) -> None:
        self._file.close()


def _joined(parts: Sequence[QuantizedMatrix]) -> QuantizedMatrix:
    """Parts of the same layout, one below the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    mins = None if first.mins is None else np.concatenate([part.mins for part in parts if part.mins is not None])
    codes, scales = (np.concatenate([getattr(part, field) for part in parts]) for field in ("codes", "scales"))
    return QuantizedMatrix(codes, scales, mins, first.zero, first.bits, first.group_size)
