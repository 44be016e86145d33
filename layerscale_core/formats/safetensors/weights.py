"""The names that Hugging Face's files give to a model's weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from layerscale_core.formats.safetensors.tensors import STACKED
from layerscale_core.formats.weights import StoredTensor
from layerscale_core.models import LayerSpec, ModelSpec, MoeSpec
from layerscale_core.models import spec as names
from layerscale_core.models.describe import unit_weights
from layerscale_core.models.families import Family

_ATTENTION: Mapping[str, tuple[str, ...]] = {
    "self_attn.q_proj.bias": (names.QUERY_BIAS,),
    "self_attn.k_proj.bias": (names.KEY_BIAS,),
    "self_attn.v_proj.bias": (names.VALUE_BIAS,),
    "self_attn.q_norm.weight": (names.QUERY_NORM,),
    "self_attn.k_norm.weight": (names.KEY_NORM,),
    "self_attn.o_proj.weight": (names.ATTENTION_OUTPUT,),
}
_SEPARATE_QKV: Mapping[str, tuple[str, ...]] = {
    "self_attn.q_proj.weight": (names.QUERY,),
    "self_attn.k_proj.weight": (names.KEY,),
    "self_attn.v_proj.weight": (names.VALUE,),
}
_FUSED_QKV: Mapping[str, tuple[str, ...]] = {"self_attn.qkv_proj.weight": (names.QUERY, names.KEY, names.VALUE)}
_SEPARATE_GATE: Mapping[str, tuple[str, ...]] = {"gate_proj.weight": (names.GATE,), "up_proj.weight": (names.UP,)}
_FUSED_GATE: Mapping[str, tuple[str, ...]] = {"gate_up_proj.weight": (names.GATE, names.UP)}
_MLP_OF = {"llama4": "feed_forward"}
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
_NORMS_OF = {
    "glm4": {
        "input_layernorm.weight": names.ATTENTION_NORM,
        "post_self_attn_layernorm.weight": names.ATTENTION_POST_NORM,
        "post_attention_layernorm.weight": names.MLP_NORM,
        "post_mlp_layernorm.weight": names.MLP_POST_NORM,
    }
}
_EXPERTS = {"mlp": {"gate_proj": names.GATE, "up_proj": names.UP, "down_proj": names.DOWN}}
_EXPERTS_OF = _EXPERTS | {"mixtral": {"w1": names.GATE, "w3": names.UP, "w2": names.DOWN}}
_MIXTURE_OF = {"mixtral": "block_sparse_moe"}
_PREFIXES = ("model.", "language_model.model.", "model.language_model.")
"""Where the language model stands: alone, or beside other parts, in the older way and the newer."""

_OTHER_PARTS = (
    *("vision_tower.", "vision_model.", "multi_modal_projector.", "audio_tower."),
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


def stored_tensors(spec: ModelSpec, family: Family, prefix: str, logit_scale: float = 1.0) -> Iterator[StoredTensor]:
    """Where the files of a family hold the weights of a model."""
    yield StoredTensor(f"{prefix}embed_tokens.weight", (names.EMBEDDING,))
    yield StoredTensor(f"{prefix}norm.weight", (names.OUTPUT_NORM,), offset=family.norm_offset, factor=logit_scale)
    if not spec.tied_output:
        yield StoredTensor(_head_name(prefix), (names.OUTPUT,))
    for index, layer in enumerate(spec.layers):
        needed = names.layer_shapes(spec, index).keys() - unit_weights(family, spec)
        for tensor, weights in _layer_tensors(layer, family).items():
            full_names = tuple(names.layer_weight(index, weight) for weight in weights)
            if full_names[0] in needed:
                offset = family.norm_offset if "norm." in tensor else 0.0
                num_entries = _num_experts(layer) if tensor.endswith(STACKED) else 0
                yield StoredTensor(f"{prefix}layers.{index}.{tensor}", full_names, num_entries, offset)


def _head_name(prefix: str) -> str:
    return "language_model.lm_head.weight" if prefix.startswith("language_model.") else "lm_head.weight"


def _layer_tensors(layer: LayerSpec, family: Family) -> dict[str, tuple[str, ...]]:
    """A layer's tensors with what they hold; more than it has, where a weight is not in every model."""
    norms = _NORMS_OF.get(family.name, _NORMS_WITH_POST_NORMS if layer.has_post_norms else _NORMS)
    mlp = _MLP_OF.get(family.name, "mlp")
    tensors: dict[str, tuple[str, ...]] = {tensor: (weight,) for tensor, weight in norms.items()}
    tensors |= _FUSED_QKV if family.has_fused_qkv else _SEPARATE_QKV
    tensors |= _ATTENTION
    gate = {**(_FUSED_GATE if family.has_fused_gate else _SEPARATE_GATE), "down_proj.weight": (names.DOWN,)}
    tensors |= {f"{mlp}.{tensor}": weights for tensor, weights in gate.items()}
    if isinstance(layer.mlp, MoeSpec) and family.has_sigmoid_experts:
        tensors |= _stacked_experts(mlp, layer.mlp)
    elif isinstance(layer.mlp, MoeSpec):
        mixture, parts = _MIXTURE_OF.get(family.name, "mlp"), _EXPERTS_OF.get(family.name, _EXPERTS["mlp"])
        tensors[f"{mixture}.gate.weight"] = (names.ROUTER,)
        for expert in range(layer.mlp.num_experts):
            for part, weight in parts.items():
                tensors[f"{mixture}.experts.{expert}.{part}.weight"] = (names.expert_weight(expert, weight),)
    return tensors


def _num_experts(layer: LayerSpec) -> int:
    return layer.mlp.num_experts if isinstance(layer.mlp, MoeSpec) else 0


def _stacked_experts(prefix: str, spec: MoeSpec) -> Mapping[str, tuple[str, ...]]:
    """All experts in two tensors, the shared one and the router beside them."""
    gate_up = [names.expert_weight(e, name) for e in range(spec.num_experts) for name in (names.GATE, names.UP)]
    parts = _EXPERTS["mlp"].items()
    return {
        f"{prefix}.router.weight": (names.ROUTER,),
        f"{prefix}.experts.gate_up_proj": tuple(gate_up),
        f"{prefix}.experts.down_proj": tuple(names.expert_weight(e, names.DOWN) for e in range(spec.num_experts)),
        **{f"{prefix}.shared_expert.{part}.weight": (names.shared_weight(weight),) for part, weight in parts},
    }
