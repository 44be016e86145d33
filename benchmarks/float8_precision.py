"""What becomes of 8-bit float weights in each layout that could hold them, on the oracle tests' texts.

python -m benchmarks.float8_precision --model MODEL.gguf

Truth is float32 products of e4m3 codes and a scale for each row; how far these are from the floats they were made of
is the last line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.precision import Setup, costs_against, model_argument, print_costs
from benchmarks.weight_precision import shuffled
from layerscale_core.formats.safetensors.float8 import E4M3_VALUES
from layerscale_core.models import DenseMatrix, Matrix
from layerscale_core.models.quantize import to_signed
from layerscale_core.quantized_model import WeightsOver
from layerscale_core.specs import WeightSource

Floats = NDArray[np.float32]

_POSITIVE = E4M3_VALUES[:127]


def to_float8(values: Floats) -> Floats:
    """The nearest products of an e4m3 code and the row's scale."""
    scales = np.abs(values).max(axis=1, keepdims=True) / _POSITIVE[-1]
    sizes = np.abs(values / scales)
    above = np.searchsorted(_POSITIVE, sizes).clip(1, len(_POSITIVE) - 1)
    nearest = np.where(sizes - _POSITIVE[above - 1] < _POSITIVE[above] - sizes, above - 1, above)
    return np.copysign(_POSITIVE[nearest], values) * scales


def to_bfloat16(values: Floats) -> DenseMatrix:
    """Rounded to the nearest, ties to even."""
    bits = values.view(np.uint32)
    return DenseMatrix(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16))


class _HeldWeights(WeightsOver):
    """Another's weights in 8-bit floats, held in some layout."""

    def __init__(self, weights: WeightSource, hold: Callable[[Floats], Matrix]) -> None:
        super().__init__(weights)
        self._hold = hold

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        """See ``WeightSource``."""
        values = super().matrix(name, start, stop).dequantize()
        return self._hold(to_float8(values) if len(values) else values)


LAYOUTS: dict[str, Callable[[Floats], Matrix]] = {
    "float16": lambda values: DenseMatrix(values.astype(np.float16)),
    "bfloat16": to_bfloat16,
    "int8": lambda values: to_signed(values, 8),
}


def held(hold: Callable[[Floats], Matrix]) -> Setup:
    """A model's weights in 8-bit floats, held in some layout."""
    return Setup(weights=lambda file: _HeldWeights(shuffled(file), hold))


def main() -> int:
    """Print one line a layout."""
    others = {name: held(hold) for name, hold in LAYOUTS.items()} | {"floats": Setup(weights=shuffled)}
    print_costs(costs_against(held(DenseMatrix), others, model_argument(__doc__)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
