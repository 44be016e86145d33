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
    """``x / (1 + e^-x)``."""
    GELU_TANH = "gelu_tanh"
    """``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`` (arXiv:1606.08415)."""


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
class TemperatureSpec:
    """Queries that grow with their position, so that attention over long contexts stays sharp (arXiv:2501.19399).

    A query is multiplied by ``1 + slope * log(1 + floor((position + offset) / interval))``.
    """

    interval: int
    slope: float
    offset: int = 0


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Causal grouped-query attention (arXiv:2305.13245).

    Attributes:
        scale: factor on query · key, usually head_dim ** -0.5.
        window: most keys that a token sees, the latest of its context with its own (arXiv:2004.05150); None = all.
        chunk: the context is cut into chunks of so many keys, and a token sees those of its own chunk; None = all.
        softcap: scaled scores become ``softcap * tanh(score / softcap)`` (arXiv:2408.00118); None = as they are.
        has_biases: query, key and value are projected with a bias.
        has_qk_norm: each head of query and key is RMS-normalised before it is rotated (arXiv:2302.05442).
        temperature: what rotated queries are multiplied by; None = nothing.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    rope: RopeSpec
    window: int | None = None
    softcap: float | None = None
    has_biases: bool = False
    has_qk_norm: bool = False
    chunk: int | None = None
    temperature: TemperatureSpec | None = None


@dataclass(frozen=True, slots=True)
class MlpSpec:
    """``down(activation(gate(x)) * up(x))`` (arXiv:2002.05202)."""

    intermediate_size: int
    activation: Activation = Activation.SILU


@dataclass(frozen=True, slots=True)
class MoeSpec:
    """A mixture of experts: the sum of the best experts' outputs, each times its weight (arXiv:2401.04088).

    An expert's weight is its share of the softmax over the router's scores of all experts.

    Attributes:
        num_active: experts that compute a token, those with the highest scores.
        expert: each of them.
        is_normalized: the weights of a token's active experts are divided by their sum.
        is_sigmoid: an expert's weight is the sigmoid of its score instead, and multiplies what it takes, not what it
            gives.
        shared: one more expert, whose output for every token is added as it is; None = there is none.
    """

    num_experts: int
    num_active: int
    expert: MlpSpec
    is_normalized: bool
    is_sigmoid: bool = False
    shared: MlpSpec | None = None


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One transformer layer: x += attention(norm(x)); x += mlp(norm(x)).

    Attributes:
        has_post_norms: what attention and MLP give is normalised too, before it is added.
    """

    attention: AttentionSpec
    mlp: MlpSpec | MoeSpec
    has_post_norms: bool = False


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only language model.

    Attributes:
        architecture: the family's name, for people.
        max_context_len: the context the model was trained for, RoPE scaling included, in tokens.
        tied_output: the head is the embedding matrix; there is no weight named ``output``.
        num_parameters: elements of all weights, a tied head counted once.
        embedding_scale: factor on the embeddings of the tokens.
        logit_softcap: logits become ``logit_softcap * tanh(logit / logit_softcap)``; None = as they are.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    max_context_len: int
    norm_eps: float
    layers: tuple[LayerSpec, ...]
    tied_output: bool
    num_parameters: int
    embedding_scale: float = 1.0
    logit_softcap: float | None = None


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
QUERY_BIAS = "query_bias"
KEY_BIAS = "key_bias"
VALUE_BIAS = "value_bias"
QUERY_NORM = "query_norm"
KEY_NORM = "key_norm"
ATTENTION_OUTPUT = "attention_output"
ATTENTION_POST_NORM = "attention_post_norm"
MLP_NORM = "mlp_norm"
GATE = "gate"
UP = "up"
DOWN = "down"
ROUTER = "router"
MLP_POST_NORM = "mlp_post_norm"


def layer_weight(layer: int, name: str) -> str:
    """The canonical name of a layer's weight, e.g. ``layers.3.query``."""
    return f"layers.{layer}.{name}"


def expert_weight(expert: int, name: str) -> str:
    """The name within its layer of an expert's weight, e.g. ``experts.7.gate``."""
    return f"experts.{expert}.{name}"


def shared_weight(name: str) -> str:
    """The name within its layer of a shared expert's weight, e.g. ``shared.gate``."""
    return f"shared.{name}"


def is_router(name: str) -> bool:
    """Whether a weight's canonical name is that of a mixture's router."""
    return name.endswith(f".{ROUTER}")


Shapes = dict[str, tuple[int, ...]]
"""Weights by name: matrices [rows = out, cols = in], vectors [n]."""


def layer_shapes(spec: ModelSpec, index: int) -> Shapes:
    """Every weight of one layer, by canonical name."""
    hidden, layer = spec.hidden_size, spec.layers[index]
    shapes = {ATTENTION_NORM: (hidden,), **_attention_shapes(layer.attention, hidden), MLP_NORM: (hidden,)}
    shapes |= _mlp_shapes(layer.mlp, hidden)
    if layer.has_post_norms:
        shapes |= {ATTENTION_POST_NORM: (hidden,), MLP_POST_NORM: (hidden,)}
    return {layer_weight(index, name): shape for name, shape in shapes.items()}


def _attention_shapes(attention: AttentionSpec, hidden: int) -> Shapes:
    query_size = attention.num_heads * attention.head_dim
    kv_size = attention.num_kv_heads * attention.head_dim
    shapes: Shapes = {
        QUERY: (query_size, hidden),
        KEY: (kv_size, hidden),
        VALUE: (kv_size, hidden),
        ATTENTION_OUTPUT: (hidden, query_size),
    }
    if attention.has_biases:
        shapes |= {QUERY_BIAS: (query_size,), KEY_BIAS: (kv_size,), VALUE_BIAS: (kv_size,)}
    if attention.has_qk_norm:
        shapes |= {QUERY_NORM: (attention.head_dim,), KEY_NORM: (attention.head_dim,)}
    return shapes


def _mlp_shapes(mlp: MlpSpec | MoeSpec, hidden: int) -> Shapes:
    if isinstance(mlp, MlpSpec):
        size = mlp.intermediate_size
        return {GATE: (size, hidden), UP: (size, hidden), DOWN: (hidden, size)}
    shapes: Shapes = {ROUTER: (mlp.num_experts, hidden)}
    for expert in range(mlp.num_experts):
        for name, shape in _mlp_shapes(mlp.expert, hidden).items():
            shapes[expert_weight(expert, name)] = shape
    if mlp.shared is not None:
        shapes |= {shared_weight(name): shape for name, shape in _mlp_shapes(mlp.shared, hidden).items()}
    return shapes


def outer_shapes(spec: ModelSpec) -> Shapes:
    """Every weight before and after the layers, by canonical name."""
    hidden, vocab = spec.hidden_size, spec.vocab_size
    shapes: Shapes = {EMBEDDING: (vocab, hidden), OUTPUT_NORM: (hidden,)}
    return shapes if spec.tied_output else shapes | {OUTPUT: (vocab, hidden)}


def weight_shapes(spec: ModelSpec) -> Shapes:
    """Every weight the model must have, by canonical name."""
    shapes = outer_shapes(spec)
    for index in range(len(spec.layers)):
        shapes |= layer_shapes(spec, index)
    return shapes
