"""A model's weights under their canonical names, each known to have the shape that the model needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats.gguf.reader import TensorInfo
from layerscale_core.formats.gguf.tensors import GgufTensors
from layerscale_core.models import Matrix, ModelSpec
from layerscale_core.models import spec as names

_MODEL_TENSORS = {
    names.EMBEDDING: "token_embd.weight",
    names.OUTPUT_NORM: "output_norm.weight",
    names.OUTPUT: "output.weight",
}
_LAYER_TENSORS = {
    names.ATTENTION_NORM: "attn_norm.weight",
    names.QUERY: "attn_q.weight",
    names.KEY: "attn_k.weight",
    names.VALUE: "attn_v.weight",
    names.ATTENTION_OUTPUT: "attn_output.weight",
    names.MLP_NORM: "ffn_norm.weight",
    names.GATE: "ffn_gate.weight",
    names.UP: "ffn_up.weight",
    names.DOWN: "ffn_down.weight",
}


def tensor_names(spec: ModelSpec) -> dict[str, str]:
    """GGUF's name of every weight of a model, by canonical name."""
    tensors = {name: tensor for name, tensor in _MODEL_TENSORS.items() if name != names.OUTPUT or not spec.tied_output}
    for layer in range(len(spec.layers)):
        for name, tensor in _LAYER_TENSORS.items():
            tensors[names.layer_weight(layer, name)] = f"blk.{layer}.{tensor}"
    return tensors


class GgufWeights:
    """A ``WeightSource`` over the tensors of one file."""

    def __init__(self, tensors: GgufTensors, tensor_names: Mapping[str, str]) -> None:
        self._tensors = tensors
        self._tensor_names = tensor_names

    def names(self) -> Sequence[str]:
        """See ``WeightSource``."""
        return tuple(self._tensor_names)

    def shape(self, name: str) -> tuple[int, ...]:
        """See ``WeightSource``."""
        return self._info(name).shape

    def stored_bytes(self, name: str) -> int:
        """See ``WeightSource``."""
        return self._info(name).num_bytes

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        """See ``WeightSource``."""
        return self._tensors.matrix(self._tensor_names[name], start, stop)

    def vector(self, name: str) -> NDArray[np.float32]:
        """See ``WeightSource``."""
        return self._tensors.vector(self._tensor_names[name])

    def drop_cache(self) -> None:
        """See ``WeightSource``."""
        self._tensors.drop_cache()

    def _info(self, name: str) -> TensorInfo:
        return self._tensors.infos[self._tensor_names[name]]


def load_weights(tensors: GgufTensors, spec: ModelSpec, other: frozenset[str], path: str) -> GgufWeights:
    """Match a file's tensors with the weights that a model has.

    Args:
        other: tensors that are no weights: the description was made from them.

    Raises:
        ModelFileError: a weight is missing or has another shape.
        UnsupportedModelError: the file holds a tensor that the description has no place for, so that computing without
            it would be computing another model.
    """
    by_weight = tensor_names(spec)
    for weight, shape in names.weight_shapes(spec).items():
        tensor = by_weight[weight]
        if tensor not in tensors.infos:
            raise ModelFileError(path, "the tensor is missing", field=tensor)
        found = tensors.infos[tensor]
        if found.shape != shape:
            reason = f"the tensor has the shape {list(found.shape)}, the metadata asks for {list(shape)}"
            raise ModelFileError(path, reason, field=tensor, offset=found.offset)
    unknown = tensors.infos.keys() - by_weight.values() - other
    if unknown:
        raise UnsupportedModelError(
            f"{path}: {spec.architecture} models with a tensor {min(unknown)!r} cannot be run yet"
        )
    return GgufWeights(tensors, by_weight)
