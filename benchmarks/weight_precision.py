"""What ``--quantization`` costs in accuracy: each type against the same weights in floats, on the oracle tests' texts.

python -m benchmarks.weight_precision --model MODEL.gguf

The weights of a file that is small enough to be had may be quantised already, and quantising them once more along the
same groups would find the same codes. The model's dimensions are therefore shuffled first: it computes the same then,
from weights whose groups are others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.precision import Cost, costs_against, layout_for, print_costs, read_texts
from layerscale_backend_cpu.backend import CpuBackend
from layerscale_core.formats.gguf import GgufModelFile
from layerscale_core.forward import make_executor
from layerscale_core.models import DenseMatrix, MlpSpec, ModelSpec
from layerscale_core.models import spec as names
from layerscale_core.models.quantize import Quantization
from layerscale_core.quantized_model import QuantizedWeights
from layerscale_core.specs import BackendOptions, Executor, KVLayout, WeightSource

_INNER_ROWS = {names.VALUE, names.GATE, names.UP}
_INNER_COLUMNS = {names.ATTENTION_OUTPUT, names.DOWN}


class ShuffledWeights:
    """A ``WeightSource`` over a llama's: float32, every matrix with its columns in another order.

    In another order are the dimensions of the residual stream, of each MLP, and of the values of each head.
    """

    def __init__(self, spec: ModelSpec, weights: WeightSource) -> None:
        self._spec = spec
        self._weights = weights
        self._hidden = np.random.default_rng(0).permutation(spec.hidden_size)

    def names(self) -> Sequence[str]:
        """See ``WeightSource``."""
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """See ``WeightSource``."""
        return self._weights.shape(name)

    def stored_bytes(self, name: str) -> int:
        """See ``WeightSource``."""
        return self._weights.stored_bytes(name)

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> DenseMatrix:
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

    def drop_cache(self) -> None:
        """See ``WeightSource``."""
        self._weights.drop_cache()

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


def measure(
    model_path: Path, quantizations: Sequence[Quantization], max_text_len: int | None = None
) -> dict[str, Cost]:
    """Compare each type with floats, and so the weights that were not shuffled: what they cost is rounding."""
    file = GgufModelFile(model_path)
    texts = [token_ids[:max_text_len] for token_ids in read_texts(file.make_tokenizer())]
    layout = layout_for(file.spec, texts)
    floats = ShuffledWeights(file.spec, file.weights)
    device = CpuBackend().load(BackendOptions())

    def open_executor(weights: WeightSource) -> tuple[Executor, KVLayout]:
        return make_executor(device, file.spec, weights, layout), layout

    reference = open_executor(floats)
    others = {"as it is": open_executor(file.weights)}
    others |= {str(each): open_executor(QuantizedWeights(floats, each)) for each in quantizations}
    costs = costs_against(reference, others, texts)
    for executor, _ in (reference, *others.values()):
        executor.close()
    file.close()
    return costs


def main() -> int:
    """Print one line a type."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file of a llama")
    print_costs(measure(parser.parse_args().model, [Quantization.INT8, Quantization.INT4]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
