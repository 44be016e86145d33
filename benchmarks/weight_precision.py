"""What ``--quantization`` costs in accuracy: each type against the same weights in floats, on the oracle tests' texts.

python -m benchmarks.weight_precision --model MODEL.gguf

The weights of a file that is small enough to be had may be quantised already, and quantising them once more along the
same groups would find the same codes. The model's dimensions are therefore shuffled first: it computes the same then,
from weights whose groups are others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.precision import Cost, Setup, costs_against, model_argument, print_costs
from layerscale_core.models import DenseMatrix, Matrix, MlpSpec, ModelSpec
from layerscale_core.models import spec as names
from layerscale_core.models.quantize import Quantization
from layerscale_core.quantized_model import QuantizedWeights, WeightsOver
from layerscale_core.specs import ModelFile, WeightSource

_INNER_ROWS = {names.VALUE, names.GATE, names.UP}
_INNER_COLUMNS = {names.ATTENTION_OUTPUT, names.DOWN}


class _ShuffledWeights(WeightsOver):
    """A llama's weights: float32, every matrix with its columns in another order.

    In another order are the dimensions of the residual stream, of each MLP, and of the values of each head.
    """

    def __init__(self, spec: ModelSpec, weights: WeightSource) -> None:
        super().__init__(weights)
        self._spec = spec
        self._hidden = np.random.default_rng(0).permutation(spec.hidden_size)

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        """See ``WeightSource``."""
        if start == stop:
            return DenseMatrix(np.empty((0, self.shape(name)[1]), np.float32))
        short = name.rpartition(".")[2]
        columns = self._inner_order(name) if short in _INNER_COLUMNS else self._hidden
        if short in _INNER_COLUMNS | _INNER_ROWS:
            rows = self._hidden if short in _INNER_COLUMNS else self._inner_order(name)
            values = self._weights.matrix(name).dequantize()[rows[start:stop]]
        else:
            values = self._weights.matrix(name, start, stop).dequantize()
        return DenseMatrix(np.ascontiguousarray(values[:, columns]))

    def vector(self, name: str) -> NDArray[np.float32]:
        """See ``WeightSource``."""
        return self._weights.vector(name)[self._hidden]

    def _inner_order(self, name: str) -> NDArray[np.int64]:
        """The order of what a layer's attention or MLP hands from one matrix to the next: the same for both."""
        _, index, short = name.split(".")
        layer, rng = self._spec.layers[int(index)], np.random.default_rng(int(index))
        if short in (names.GATE, names.UP, names.DOWN):
            assert isinstance(layer.mlp, MlpSpec)
            return rng.permutation(layer.mlp.intermediate_size)
        num_heads, head_dim = layer.attention.num_heads, layer.attention.head_dim
        if short == names.VALUE:
            num_heads = layer.attention.num_kv_heads
        return (np.arange(num_heads)[:, None] * head_dim + rng.permutation(head_dim)).reshape(-1)


def shuffled(file: ModelFile) -> WeightSource:
    """The weights of a llama for shuffled dimensions."""
    return _ShuffledWeights(file.spec, file.weights)


def measure(
    model_path: Path, quantizations: Sequence[Quantization], max_text_len: int | None = None
) -> dict[str, Cost]:
    """Compare each type with floats, and so the weights that were not shuffled: what they cost is rounding."""

    def quantized(quantization: Quantization) -> Setup:
        return Setup(weights=lambda file: QuantizedWeights(shuffled(file), quantization))

    others = {"as it is": Setup()} | {str(each): quantized(each) for each in quantizations}
    return costs_against(Setup(weights=shuffled), others, model_path, max_text_len)


def main() -> int:
    """Print one line a type."""
    print_costs(measure(model_argument(__doc__), [Quantization.INT8, Quantization.INT4]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
