"""The inputs and outputs by which an exported decoder is called, as Optimum and Hugging Face's libraries name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats.onnx.graph import Graph, Port
from layerscale_core.models import ModelSpec

TOKENS, MASK, POSITIONS, LOGITS = "input_ids", "attention_mask", "position_ids", "logits"

_Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Decoder:
    """How a graph is called.

    Attributes:
        past, present: names of each layer's keys and values before and after, [1, num_kv_heads, context, head_dim].
        dtype: of those; float16 or float32.
    """

    past: tuple[tuple[str, str], ...]
    present: tuple[tuple[str, str], ...]
    dtype: np.dtype[Any]


def read_decoder(graph: Graph, spec: ModelSpec, path: str) -> Decoder:
    """How to call a graph, which is a decoder with the layers of a description.

    Raises:
        ModelFileError: an input or output is missing, or has another shape than the configuration says.
        UnsupportedModelError: another kind of graph.
    """
    past, present = (
        tuple((f"{side}.{layer}.key", f"{side}.{layer}.value") for layer in range(len(spec.layers)))
        for side in ("past_key_values", "present")
    )
    if POSITIONS not in graph.inputs:
        raise UnsupportedModelError(
            f"{path}: it has no input {POSITIONS!r} and counts positions by itself, so that a session's old data "
            "could not be dropped; export it with one"
        )
    inputs: dict[str, _Shape] = dict.fromkeys((TOKENS, MASK, POSITIONS), (None, None))
    outputs: dict[str, _Shape] = {LOGITS: (None, None, spec.vocab_size)}
    for layer, names_before, names_after in zip(spec.layers, past, present, strict=True):
        cache = (None, layer.attention.num_kv_heads, None, layer.attention.head_dim)
        inputs |= dict.fromkeys(names_before, cache)
        outputs |= dict.fromkeys(names_after, cache)
    unknown = graph.inputs.keys() - inputs
    if unknown:
        raise UnsupportedModelError(f"{path}: graphs with an input {min(unknown)[:80]!r} cannot be run yet")
    _check(graph.inputs, inputs, path)
    _check(graph.outputs, outputs, path)
    dtypes = {graph.inputs[name].dtype for pair in past for name in pair}
    dtypes |= {graph.outputs[name].dtype for pair in present for name in pair}
    if not dtypes <= {np.dtype(np.float32)} and not dtypes <= {np.dtype(np.float16)}:
        raise UnsupportedModelError(f"{path}: keys and values are neither all float32 nor all float16")
    return Decoder(past, present, np.dtype(dtypes.pop()))


def _check(ports: Mapping[str, Port], expected: Mapping[str, _Shape], path: str) -> None:
    for name, shape in expected.items():
        port = ports.get(name)
        if port is None:
            raise ModelFileError(path, "the graph has no such input or output", field=name)
        if len(port.shape) != len(shape) or any(
            None not in pair and pair[0] != pair[1] for pair in zip(port.shape, shape, strict=True)
        ):
            reason = f"it has the shape {_words(port.shape)}, the configuration asks for {_words(shape)}"
            raise ModelFileError(path, reason, field=name)


def _words(shape: _Shape) -> str:
    return "[" + ", ".join("any" if dim is None else str(dim) for dim in shape) + "]"
