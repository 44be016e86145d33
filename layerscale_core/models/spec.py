"""What a model *is*, as data: the layer descriptions that every executor interprets.

A model family is a function from a file's metadata to a ``ModelSpec``. Executors know these descriptions and no family
names, so a new family is a new description, and new mathematics is a new field with a neutral default.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Activation(enum.Enum):
    """The nonlinearity of a gated MLP."""

    SILU = "silu"


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding (arXiv:2104.09864), every scaling kind already folded into a table.

    Attributes:
        inv_freq: [rotary_dim / 2] radians per position of each rotated pair.
        magnitude: factor on cosine and sine (YaRN's attention factor, arXiv:2309.00071); 1 otherwise.
        interleaved: pairs are elements (2i, 2i+1); otherwise (i, i + rotary_dim / 2).
    """

    inv_freq: tuple[float, ...]
    magnitude: float = 1.0
    interleaved: bool = False

    @property
    def rotary_dim(self) -> int:
        """Leading elements of a head that are rotated; the rest pass unchanged."""
        return 2 * len(self.inv_freq)


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Causal grouped-query attention (arXiv:2305.13245).

    Attributes:
        scale: factor on query · key, usually head_dim ** -0.5.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    rope: RopeSpec


@dataclass(frozen=True, slots=True)
class MlpSpec:
    """``down(activation(gate(x)) * up(x))`` (arXiv:2002.05202)."""

    intermediate_size: int
    activation: Activation = Activation.SILU


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One pre-norm transformer layer: x += attention(norm(x)); x += mlp(norm(x))."""

    attention: AttentionSpec
    mlp: MlpSpec


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only language model.

    Attributes:
        architecture: the family's name, for people.
        max_context_len: the context the model was trained for, RoPE scaling included, in tokens.
        tied_output: the head is the embedding matrix; there is no weight named ``output``.
        num_parameters: elements of all weights, a tied head counted once.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    max_context_len: int
    norm_eps: float
    layers: tuple[LayerSpec, ...]
    tied_output: bool
    num_parameters: int


EMBEDDING = "embedding"
"""[vocab_size, hidden_size]"""
OUTPUT_NORM = "output_norm"
"""[hidden_size]"""
OUTPUT = "output"
"""[vocab_size, hidden_size]; absent when ``tied_output``"""

ATTENTION_NORM = "attention_norm"
QUERY = "query"
KEY = "key"
VALUE = "value"
ATTENTION_OUTPUT = "attention_output"
MLP_NORM = "mlp_norm"
GATE = "gate"
UP = "up"
DOWN = "down"


def layer_weight(layer: int, name: str) -> str:
    """The canonical name of a layer's weight, e.g. ``layers.3.query``."""
    return f"layers.{layer}.{name}"


def layer_shapes(spec: ModelSpec, index: int) -> dict[str, tuple[int, ...]]:
    """Every weight of one layer, by canonical name: matrices [rows = out, cols = in], vectors [n]."""
    hidden, attention, mlp = spec.hidden_size, spec.layers[index].attention, spec.layers[index].mlp
    query_size = attention.num_heads * attention.head_dim
    kv_size = attention.num_kv_heads * attention.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        ATTENTION_NORM: (hidden,),
        QUERY: (query_size, hidden),
        KEY: (kv_size, hidden),
        VALUE: (kv_size, hidden),
        ATTENTION_OUTPUT: (hidden, query_size),
        MLP_NORM: (hidden,),
        GATE: (mlp.intermediate_size, hidden),
        UP: (mlp.intermediate_size, hidden),
        DOWN: (hidden, mlp.intermediate_size),
    }
    return {layer_weight(index, name): shape for name, shape in shapes.items()}


def outer_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Every weight before and after the layers, by canonical name."""
    hidden, vocab = spec.hidden_size, spec.vocab_size
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (vocab, hidden), OUTPUT_NORM: (hidden,)}
    return shapes if spec.tied_output else shapes | {OUTPUT: (vocab, hidden)}


def weight_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Every weight the model must have, by canonical name: matrices [rows = out, cols = in], vectors [n]."""
    shapes = outer_shapes(spec)
    for index in range(len(spec.layers)):
        shapes |= layer_shapes(spec, index)
    return shapes
