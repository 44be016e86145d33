"""From a family's row and a file's numbers to a description.

Every format reads its files into the same numbers, so that a family is described once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from layerscale_core.models.families import Family
from layerscale_core.models.spec import (
    KEY_NORM,
    QUERY_NORM,
    AttentionSpec,
    LayerSpec,
    MlpSpec,
    ModelSpec,
    MoeSpec,
    RopeSpec,
    TemperatureSpec,
    weight_shapes,
)

NO_ROPE = RopeSpec(())
"""The rotation of a layer that knows no positions."""


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
        window, chunk: of the windowed layers; both None: there are none.
        windowed_layers: their indices, where the file says; None: the family knows.
        unrotated_layers: likewise.
        scale: on query · key, where it is not head_dim ** -0.5.
        has_biases: beside what the family says.
        has_qk_norm: unless the family says otherwise.
        temperature: of the layers without rotation, or of all where all are rotated.
        embedding_scale, logit_scale: factors on embeddings and logits.
        residual_scale: on what attention and MLP give, before it is added.
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
    has_qk_norm: bool = True
    chunk: int | None = None
    temperature: TemperatureSpec | None = None
    embedding_scale: float = 1.0
    logit_scale: float = 1.0
    residual_scale: float = 1.0
    experts: Experts | None = None


def describe(family: Family, numbers: Numbers) -> ModelSpec:
    """The description of a model of a family.

    A factor on all that is added to the residual stream leaves the model the same when instead the embeddings and, in
    every norm, the square root of epsilon are divided by it; a factor on the logits lies in the weights of the last
    norm.
    """
    embedding_scale = math.sqrt(numbers.hidden_size) if family.has_scaled_embedding else numbers.embedding_scale
    spec = ModelSpec(
        architecture=family.name,
        vocab_size=numbers.vocab_size,
        hidden_size=numbers.hidden_size,
        max_context_len=numbers.max_context_len,
        norm_eps=numbers.norm_eps / numbers.residual_scale**2,
        layers=tuple(_layers(family, numbers)),
        tied_output=numbers.tied_output,
        num_parameters=0,
        embedding_scale=embedding_scale / numbers.residual_scale,
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
        has_qk_norm=family.has_qk_norm and numbers.has_qk_norm,
    )
    windowed = replace(full, window=numbers.window, chunk=numbers.chunk, rope=numbers.local_rope or numbers.rope)
    windowed_layers, unrotated_layers = _windowed_layers(family, numbers), _unrotated_layers(family, numbers)
    for index in range(numbers.num_layers):
        attention = windowed if index in windowed_layers else full
        if index in unrotated_layers:
            has_norm = attention.has_qk_norm and not family.has_plain_qk_norm
            attention = replace(attention, rope=NO_ROPE, has_qk_norm=has_norm)
        if index in unrotated_layers or family.unrotated_every is None:
            attention = replace(attention, temperature=numbers.temperature)
        yield LayerSpec(attention, _mlp(family, numbers, index), family.has_post_norms)


def _mlp(family: Family, numbers: Numbers, index: int) -> MlpSpec | MoeSpec:
    experts = numbers.experts
    if experts is None or index in experts.dense_layers:
        return MlpSpec(numbers.intermediate_size, family.activation)
    expert = MlpSpec(experts.intermediate_size, family.activation)
    if family.has_sigmoid_experts:
        return MoeSpec(experts.num_experts, experts.num_active, expert, False, is_sigmoid=True, shared=expert)
    return MoeSpec(experts.num_experts, experts.num_active, expert, experts.is_normalized)


def _windowed_layers(family: Family, numbers: Numbers) -> frozenset[int]:
    if numbers.window is None and numbers.chunk is None:
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


def unit_weights(family: Family, spec: ModelSpec) -> frozenset[str]:
    """The weights of a model that are 1 and that no file holds: those of norms without weights."""
    if not family.has_plain_qk_norm:
        return frozenset()
    return frozenset(name for name in weight_shapes(spec) if name.endswith((QUERY_NORM, KEY_NORM)))
