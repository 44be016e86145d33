"""The families of models that this build knows: one row each, and from a row and a file's numbers to a description.

A family is what its models have in common and their files do not say. Every format reads its files into the same
numbers, so that a family is described once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from layerscale_core.models.spec import (
    Activation,
    AttentionSpec,
    LayerSpec,
    MlpSpec,
    ModelSpec,
    MoeSpec,
    RopeSpec,
    weight_shapes,
)

NO_ROPE = RopeSpec(())
"""The rotation of a layer that knows no positions."""


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table.

    Attributes:
        gguf: ``general.architecture`` of its GGUF files; None: they go by another family's.
        huggingface: ``model_type`` in its ``config.json``.
        has_biases, has_qk_norm: see ``AttentionSpec``.
        has_post_norms: see ``LayerSpec``.
        has_scaled_embedding: embeddings are multiplied by the square root of their width.
        has_tied_output: unless a ``config.json`` says otherwise.
        is_fused: files hold query, key and value in one tensor, and gate and up in another.
        is_interleaved: GGUF files have the rows of query and key in an order that puts rotated pairs side by side.
        norm_offset: what the files of Hugging Face leave out of the weights of norms.
        full_every: among windowed layers, every so-many-th sees the whole context; None: no layer does.
        window: where a file does not say.
        local_rope_base: of the rotation of windowed layers, which is not scaled; None: it is that of the others.
        unrotated_every: every so-many-th layer has no rotation; None: all have.
        score_softcap, logit_softcap: where a file does not say.
    """

    name: str
    gguf: str | None
    huggingface: tuple[str, ...]
    activation: Activation = Activation.SILU
    has_biases: bool = False
    has_qk_norm: bool = False
    has_post_norms: bool = False
    has_scaled_embedding: bool = False
    has_tied_output: bool = False
    is_fused: bool = False
    is_interleaved: bool = False
    norm_offset: float = 0.0
    full_every: int | None = None
    window: int | None = None
    local_rope_base: float | None = None
    unrotated_every: int | None = None
    score_softcap: float | None = None
    logit_softcap: float | None = None


_LLAMA = Family("llama", "llama", ("llama",), is_interleaved=True)
_GEMMA = Family(
    "gemma",
    "gemma",
    ("gemma",),
    activation=Activation.GELU_TANH,
    has_scaled_embedding=True,
    has_tied_output=True,
    norm_offset=1.0,
)

FAMILIES = (
    _LLAMA,
    replace(_LLAMA, name="mistral", gguf=None, huggingface=("mistral",)),
    replace(_LLAMA, name="mixtral", gguf=None, huggingface=("mixtral",)),
    replace(_LLAMA, name="smollm3", gguf="smollm3", huggingface=("smollm3",), has_tied_output=True, unrotated_every=4),
    Family("qwen2", "qwen2", ("qwen2",), has_biases=True),
    Family("qwen3", "qwen3", ("qwen3",), has_qk_norm=True),
    Family("qwen3moe", "qwen3moe", ("qwen3_moe",), has_qk_norm=True),
    _GEMMA,
    replace(
        _GEMMA,
        name="gemma2",
        gguf="gemma2",
        huggingface=("gemma2",),
        has_post_norms=True,
        full_every=2,
        window=4096,
        score_softcap=50.0,
        logit_softcap=30.0,
    ),
    replace(
        _GEMMA,
        name="gemma3",
        gguf="gemma3",
        huggingface=("gemma3_text", "gemma3"),
        has_qk_norm=True,
        has_post_norms=True,
        full_every=6,
        local_rope_base=10_000.0,
    ),
    Family("phi3", "phi3", ("phi3",), is_fused=True),
)

BY_GGUF = {family.gguf: family for family in FAMILIES if family.gguf is not None}
BY_HUGGINGFACE = {model_type: family for family in FAMILIES for model_type in family.huggingface}


@dataclass(frozen=True, slots=True)
class Experts:
    """The numbers of a mixture of experts.

    Attributes:
        intermediate_size: of each expert.
        is_normalized: see ``MoeSpec``.
        dense_layers: indices of the layers that have an ordinary MLP all the same.
    """

    num_experts: int
    num_active: int
    intermediate_size: int
    is_normalized: bool = True
    dense_layers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a file says of its model, whatever its format.

    Attributes:
        rope: of the layers that see the whole context.
        local_rope: of the others, where it is another.
        window: of the windowed layers; None: there are none.
        windowed_layers: their indices, where the file says; None: the family knows.
        unrotated_layers: likewise.
        scale: on query · key, where it is not head_dim ** -0.5.
        has_biases: beside what the family says.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    norm_eps: float
    max_context_len: int
    tied_output: bool
    rope: RopeSpec
    local_rope: RopeSpec | None = None
    window: int | None = None
    windowed_layers: frozenset[int] | None = None
    unrotated_layers: frozenset[int] | None = None
    scale: float | None = None
    score_softcap: float | None = None
    logit_softcap: float | None = None
    has_biases: bool = False
    experts: Experts | None = None


def describe(family: Family, numbers: Numbers) -> ModelSpec:
    """The description of a model of a family."""
    spec = ModelSpec(
        architecture=family.name,
        vocab_size=numbers.vocab_size,
        hidden_size=numbers.hidden_size,
        max_context_len=numbers.max_context_len,
        norm_eps=numbers.norm_eps,
        layers=tuple(_layers(family, numbers)),
        tied_output=numbers.tied_output,
        num_parameters=0,
        embedding_scale=math.sqrt(numbers.hidden_size) if family.has_scaled_embedding else 1.0,
        logit_softcap=numbers.logit_softcap,
    )
    return replace(spec, num_parameters=sum(math.prod(shape) for shape in weight_shapes(spec).values()))


def _layers(family: Family, numbers: Numbers) -> Iterable[LayerSpec]:
    full = AttentionSpec(
        numbers.num_heads,
        numbers.num_kv_heads,
        numbers.head_dim,
        numbers.head_dim**-0.5 if numbers.scale is None else numbers.scale,
        numbers.rope,
        softcap=numbers.score_softcap,
        has_biases=family.has_biases or numbers.has_biases,
        has_qk_norm=family.has_qk_norm,
    )
    windowed = replace(full, window=numbers.window, rope=numbers.local_rope or numbers.rope)
    windowed_layers, unrotated_layers = _windowed_layers(family, numbers), _unrotated_layers(family, numbers)
    for index in range(numbers.num_layers):
        attention = windowed if index in windowed_layers else full
        if index in unrotated_layers:
            attention = replace(attention, rope=NO_ROPE)
        yield LayerSpec(attention, _mlp(family, numbers, index), family.has_post_norms)


def _mlp(family: Family, numbers: Numbers, index: int) -> MlpSpec | MoeSpec:
    experts = numbers.experts
    if experts is None or index in experts.dense_layers:
        return MlpSpec(numbers.intermediate_size, family.activation)
    expert = MlpSpec(experts.intermediate_size, family.activation)
    return MoeSpec(experts.num_experts, experts.num_active, expert, experts.is_normalized)


def _windowed_layers(family: Family, numbers: Numbers) -> frozenset[int]:
    if numbers.window is None:
        return frozenset()
    if numbers.windowed_layers is not None:
        return numbers.windowed_layers
    return frozenset(range(numbers.num_layers)) - _every(family.full_every, numbers.num_layers)


def _unrotated_layers(family: Family, numbers: Numbers) -> frozenset[int]:
    if numbers.unrotated_layers is not None:
        return numbers.unrotated_layers
    return _every(family.unrotated_every, numbers.num_layers)


def _every(interval: int | None, num_layers: int) -> frozenset[int]:
    """The indices of every so-many-th layer, counted from the first."""
    return frozenset() if interval is None else frozenset(range(interval - 1, num_layers, interval))
