"""The names that Hugging Face's files give to a model's weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from layerscale_core.formats.weights import StoredTensor
from layerscale_core.models import LayerSpec, ModelSpec, MoeSpec
from layerscale_core.models import spec as names
from layerscale_core.models.families import Family

_ATTENTION: Mapping[str, tuple[str, ...]] = {
    "self_attn.q_proj.bias": (names.QUERY_BIAS,),
    "self_attn.k_proj.bias": (names.KEY_BIAS,),
    "self_attn.v_proj.bias": (names.VALUE_BIAS,),
    "self_attn.q_norm.weight": (names.QUERY_NORM,),
    "self_attn.k_norm.weight": (names.KEY_NORM,),
    "self_attn.o_proj.weight": (names.ATTENTION_OUTPUT,),
}
_PROJECTIONS: Mapping[str, tuple[str, ...]] = {
    "self_attn.q_proj.weight": (names.QUERY,),
    "self_attn.k_proj.weight": (names.KEY,),
    "self_attn.v_proj.weight": (names.VALUE,),
    "mlp.gate_proj.weight": (names.GATE,),
    "mlp.up_proj.weight": (names.UP,),
    "mlp.down_proj.weight": (names.DOWN,),
}
_FUSED_PROJECTIONS: Mapping[str, tuple[str, ...]] = {
    "self_attn.qkv_proj.weight": (names.QUERY, names.KEY, names.VALUE),
    "mlp.gate_up_proj.weight": (names.GATE, names.UP),
    "mlp.down_proj.weight": (names.DOWN,),
}
_NORMS = {
    "input_layernorm.weight": names.ATTENTION_NORM,
    "post_attention_layernorm.weight": names.MLP_NORM,
}
_NORMS_WITH_POST_NORMS = {
    "input_layernorm.weight": names.ATTENTION_NORM,
    "post_attention_layernorm.weight": names.ATTENTION_POST_NORM,
    "pre_feedforward_layernorm.weight": names.MLP_NORM,
    "post_feedforward_layernorm.weight": names.MLP_POST_NORM,
}
_EXPERTS = {"mlp": {"gate_proj": names.GATE, "up_proj": names.UP, "down_proj": names.DOWN}}
_EXPERTS_OF = _EXPERTS | {"mixtral": {"w1": names.GATE, "w3": names.UP, "w2": names.DOWN}}
_MIXTURE_OF = {"mixtral": "block_sparse_moe"}
_PREFIXES = ("model.", "language_model.model.", "model.language_model.")
"""Where the language model stands: alone, or beside other parts, in the older way and the newer."""

_OTHER_PARTS = (
    *("vision_tower.", "multi_modal_projector.", "audio_tower."),
    *("model.vision_tower.", "model.multi_modal_projector.", "model.audio_tower."),
)
_COMPUTED = "rotary_emb.inv_freq"


def find_prefix(tensors: Collection[str]) -> str:
    """What stands before the names of the language model's tensors."""
    return next((prefix for prefix in _PREFIXES if f"{prefix}embed_tokens.weight" in tensors), _PREFIXES[0])


def other_tensors(tensors: Collection[str], spec: ModelSpec, prefix: str) -> frozenset[str]:
    """Tensors without which the language model is the same: other parts', copies of a tied head, tables."""
    others = {name for name in tensors if name.startswith(_OTHER_PARTS) or name.endswith(_COMPUTED)}
    return frozenset(others | {_head_name(prefix)} if spec.tied_output else others)


def stored_tensors(spec: ModelSpec, family: Family, prefix: str) -> Iterator[StoredTensor]:
    """Where the files of a family hold the weights of a model."""
    yield StoredTensor(f"{prefix}embed_tokens.weight", (names.EMBEDDING,))
    yield StoredTensor(f"{prefix}norm.weight", (names.OUTPUT_NORM,), offset=family.norm_offset)
    if not spec.tied_output:
        yield StoredTensor(_head_name(prefix), (names.OUTPUT,))
    for index, layer in enumerate(spec.layers):
        needed = names.layer_shapes(spec, index).keys()
        for tensor, weights in _layer_tensors(layer, family).items():
            full_names = tuple(names.layer_weight(index, weight) for weight in weights)
            if full_names[0] in needed:
                offset = family.norm_offset if "norm." in tensor else 0.0
                yield StoredTensor(f"{prefix}layers.{index}.{tensor}", full_names, offset=offset)


def _head_name(prefix: str) -> str:
    return "language_model.lm_head.weight" if prefix.startswith("language_model.") else "lm_head.weight"


def _layer_tensors(layer: LayerSpec, family: Family) -> dict[str, tuple[str, ...]]:
    """A layer's tensors with what they hold; more than it has, where a weight is not in every model."""
    norms = _NORMS_WITH_POST_NORMS if layer.has_post_norms else _NORMS
    tensors: dict[str, tuple[str, ...]] = {tensor: (weight,) for tensor, weight in norms.items()}
    tensors |= _FUSED_PROJECTIONS if family.is_fused else _PROJECTIONS
    tensors |= _ATTENTION
    if isinstance(layer.mlp, MoeSpec):
        mixture, parts = _MIXTURE_OF.get(family.name, "mlp"), _EXPERTS_OF.get(family.name, _EXPERTS["mlp"])
        tensors[f"{mixture}.gate.weight"] = (names.ROUTER,)
        for expert in range(layer.mlp.num_experts):
            for part, weight in parts.items():
                tensors[f"{mixture}.experts.{expert}.{part}.weight"] = (names.expert_weight(expert, weight),)
    return tensors
