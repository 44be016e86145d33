"""Random models in memory: a description of any shape, and weights for it in any internal layout."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from layerscale_core.models import (
    Activation,
    AttentionSpec,
    DenseMatrix,
    LayerSpec,
    Matrix,
    MlpSpec,
    ModelSpec,
    MoeSpec,
    QuantizedMatrix,
    RopeSpec,
    TemperatureSpec,
)
from layerscale_core.models.spec import weight_shapes

Codebook = NDArray[np.uint8]

_CODEBOOK = np.array([3, 22, 40, 61, 78, 95, 104, 119, 129, 140, 152, 167, 181, 198, 215, 244], np.uint8)


@dataclass(frozen=True, slots=True)
class QuantizedLayout:
    """The fields of a ``QuantizedMatrix`` that are the same for all its groups."""

    bits: int
    group_size: int
    zero: int = 0
    has_mins: bool = False
    codebook: Codebook | None = None

    def random(self, generator: np.random.Generator, shape: tuple[int, int], deviation: float) -> QuantizedMatrix:
        """Random codes and scales of either sign: weights of mean 0 and roughly the given standard deviation."""
        rows, cols = shape
        groups = (rows, cols // self.group_size)
        values = np.arange(2**self.bits) if self.codebook is None else self.codebook.astype(np.int64)
        scales = generator.uniform(0.5, 1.5, groups) * generator.choice([-1, 1], groups) * (deviation / values.std())
        mins = generator.normal(-scales * values.mean(), 0.1 * deviation) if self.has_mins else None
        return QuantizedMatrix(
            codes=generator.integers(0, 2**self.bits, shape, dtype=np.uint8),
            scales=scales.astype(np.float32),
            mins=None if mins is None else mins.astype(np.float32),
            zero=self.zero,
            bits=self.bits,
            group_size=self.group_size,
            codebook=self.codebook,
        )


@dataclass(frozen=True, slots=True)
class DenseLayout:
    """The element type of a ``DenseMatrix``."""

    element: Literal["f32", "f16", "bf16"]

    def random(self, generator: np.random.Generator, shape: tuple[int, int], deviation: float) -> DenseMatrix:
        """Normally distributed weights."""
        weights = generator.normal(0, deviation, shape).astype(np.float32)
        match self.element:
            case "f32":
                return DenseMatrix(weights)
            case "f16":
                return DenseMatrix(weights.astype(np.float16))
            case "bf16":
                return DenseMatrix((weights.view(np.uint32) >> 16).astype(np.uint16))


LAYOUTS: Mapping[str, DenseLayout | QuantizedLayout] = {
    "f32": DenseLayout("f32"),
    "f16": DenseLayout("f16"),
    "bf16": DenseLayout("bf16"),
    "4-bit, groups of 32": QuantizedLayout(4, 32, zero=8),
    "4-bit, groups of 32, mins": QuantizedLayout(4, 32, has_mins=True),
    "4-bit, groups of 16": QuantizedLayout(4, 16, zero=8),
    "4-bit, groups of 16, mins": QuantizedLayout(4, 16, has_mins=True),
    "6-bit, groups of 32": QuantizedLayout(6, 32, zero=32),
    "6-bit, groups of 32, mins": QuantizedLayout(6, 32, has_mins=True),
    "6-bit, groups of 16": QuantizedLayout(6, 16, zero=32),
    "8-bit, groups of 32": QuantizedLayout(8, 32, zero=128),
    "codebook, groups of 32": QuantizedLayout(4, 32, zero=128, codebook=_CODEBOOK),
}
"""Every kind of matrix that a model format may hand to a backend."""


def tiny_spec(
    *,
    num_layers: int = 2,
    hidden_size: int = 64,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    head_dim: int = 16,
    intermediate_size: int = 96,
    vocab_size: int = 131,
    rotary_dim: int | None = None,
    interleaved: bool = False,
    rope_magnitude: float = 1.0,
    tied_output: bool = True,
    activation: Activation = Activation.SILU,
    windows: Sequence[int | None] = (None,),
    softcap: float | None = None,
    has_biases: bool = False,
    has_qk_norm: bool = False,
    has_post_norms: bool = False,
    num_experts: int | None = None,
    num_active: int = 2,
    is_normalized: bool = True,
    is_sigmoid: bool = False,
    shared_size: int | None = None,
    chunk: int | None = None,
    temperature: TemperatureSpec | None = None,
    embedding_scale: float = 1.0,
    logit_softcap: float | None = None,
) -> ModelSpec:
    """A model that computes in a millisecond, with everything that kernels care about free to choose.

    Args:
        windows: of the first layers; the others repeat them.
        num_experts: with experts of ``intermediate_size`` in place of one MLP.
        shared_size: with one more expert of this size, for every token.
    """
    rotary_dim = head_dim if rotary_dim is None else rotary_dim
    inv_freq = tuple(10_000.0 ** (-2 * pair / rotary_dim) for pair in range(rotary_dim // 2))
    attention = AttentionSpec(
        num_heads,
        num_kv_heads,
        head_dim,
        head_dim**-0.5,
        RopeSpec(inv_freq, rope_magnitude, interleaved),
        softcap=softcap,
        has_biases=has_biases,
        has_qk_norm=has_qk_norm,
        chunk=chunk,
        temperature=temperature,
    )
    mlp = MlpSpec(intermediate_size, activation)
    shared = None if shared_size is None else MlpSpec(shared_size, activation)
    moe = None if num_experts is None else MoeSpec(num_experts, num_active, mlp, is_normalized, is_sigmoid, shared)
    spec = ModelSpec(
        architecture="random",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        max_context_len=4096,
        norm_eps=1e-5,
        layers=tuple(
            LayerSpec(replace(attention, window=windows[index % len(windows)]), moe or mlp, has_post_norms)
            for index in range(num_layers)
        ),
        tied_output=tied_output,
        num_parameters=0,
        embedding_scale=embedding_scale,
        logit_softcap=logit_softcap,
    )
    return replace(spec, num_parameters=sum(math.prod(shape) for shape in weight_shapes(spec).values()))


OPERATIONS: Mapping[str, Mapping[str, Any]] = {
    "GELU": {"activation": Activation.GELU_TANH},
    "window": {"windows": (9,)},
    "window of a page in every other layer": {"windows": (16, None)},
    "window of one key": {"windows": (1,)},
    "window beyond the prompt": {"windows": (50,)},
    "soft cap on scores": {"softcap": 0.7},
    "biases": {"has_biases": True},
    "QK norm": {"has_qk_norm": True},
    "post-norms": {"has_post_norms": True},
    "experts": {"num_experts": 5},
    "experts with weights as they are": {"num_experts": 4, "num_active": 3, "is_normalized": False},
    "experts that weigh what they take": {"num_experts": 4, "is_normalized": False, "is_sigmoid": True},
    "a shared expert": {"num_experts": 4, "shared_size": 160},
    "chunks": {"chunk": 10},
    "chunks of a page": {"chunk": 16},
    "queries that grow": {"temperature": TemperatureSpec(8, 0.5, offset=1)},
    "scaled embedding": {"embedding_scale": 8.0},
    "soft cap on logits": {"logit_softcap": 1.5},
    "everything": {
        "activation": Activation.GELU_TANH,
        "windows": (12, None),
        "softcap": 2.0,
        "has_biases": True,
        "has_qk_norm": True,
        "has_post_norms": True,
        "num_experts": 4,
        "embedding_scale": 4.0,
        "logit_softcap": 5.0,
    },
}
"""What a layer may compute beside the ordinary, as arguments of ``tiny_spec``."""


class RandomWeights:
    """``layerscale_core.specs.WeightSource`` for any model description; the same seed always gives the same weights.

    Args:
        layout: a key of ``LAYOUTS``, for all matrices.
    """

    def __init__(self, spec: ModelSpec, layout: str = "f32", seed: int = 0) -> None:
        self._shapes = weight_shapes(spec)
        self._layout = LAYOUTS[layout]
        self._seed = seed

    def names(self) -> Sequence[str]:
        """Every weight of the model."""
        return tuple(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """[rows, cols] of a matrix, [n] of a vector."""
        return self._shapes[name]

    def stored_bytes(self, name: str) -> int:
        """What the weight would occupy as float32: nothing is stored."""
        return 4 * math.prod(self._shapes[name])

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        """Rows ``[start, stop)`` of a matrix. Their scale keeps activations near 1 through all layers."""
        rows, cols = self._shapes[name]
        whole = self._layout.random(self._generator(name), (rows, cols), cols**-0.5)
        return whole if (start, stop) == (0, None) else _rows(whole, slice(start, stop))

    def vector(self, name: str) -> NDArray[np.float32]:
        """A norm's weights, around 1; a bias has no fewer."""
        return self._generator(name).uniform(0.5, 1.5, self._shapes[name]).astype(np.float32)

    def drop_cache(self) -> None:
        """Nothing is cached."""

    def _generator(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, zlib.crc32(name.encode())])


def _rows(matrix: Matrix, rows: slice) -> Matrix:
    if isinstance(matrix, DenseMatrix):
        return DenseMatrix(matrix.data[rows].copy())
    mins = None if matrix.mins is None else matrix.mins[rows].copy()
    return replace(matrix, codes=matrix.codes[rows].copy(), scales=matrix.scales[rows].copy(), mins=mins)
