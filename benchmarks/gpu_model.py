"""Models of a given shape with random weights, made in seconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscale_core.conformance import LAYOUTS, RandomWeights, tiny_spec
from layerscale_core.models import DenseMatrix, Matrix, ModelSpec, QuantizedMatrix

WEIGHTS = {"bf16": "bf16", "int8": "8-bit, groups of 32", "int4": "4-bit, groups of 32"}
"""Precisions by the layout that has them."""

EIGHT_B = tiny_spec(
    num_layers=32,
    hidden_size=4096,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=14336,
    vocab_size=128256,
    tied_output=False,
)
"""The shape of Llama 3 8B."""

TINY = tiny_spec(tied_output=False)
"""To see that everything runs."""

_BLOCK_ROWS = 64


class ShapedWeights(RandomWeights):
    """A few random rows, again and again: speed does not depend on values.

    Args:
        precision: a key of ``WEIGHTS``.
    """

    def __init__(self, spec: ModelSpec, precision: str) -> None:
        super().__init__(spec, WEIGHTS[precision])
        self._block_layout = LAYOUTS[WEIGHTS[precision]]

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        """Rows of a matrix: those of one block, repeated."""
        rows, cols = self.shape(name)
        block = self._block_layout.random(np.random.default_rng(0), (_BLOCK_ROWS, cols), cols**-0.5)
        return _repeated(block, len(range(rows)[start:stop]))


def _repeated(block: Matrix, rows: int) -> Matrix:
    if isinstance(block, DenseMatrix):
        return DenseMatrix(_rows(block.data, rows))
    mins = None if block.mins is None else _rows(block.mins, rows)
    codes, scales = _rows(block.codes, rows), _rows(block.scales, rows)
    return QuantizedMatrix(codes, scales, mins, block.zero, block.bits, block.group_size, block.codebook)


def _rows(array: NDArray[np.generic], rows: int) -> NDArray[np.generic]:
    return np.resize(array, (rows, array.shape[1])) if rows else array[:0]
