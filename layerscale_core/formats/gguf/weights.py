"""GGUF's names for a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layerscale_core.formats.weights import StoredTensor
from layerscale_core.models import LayerSpec, ModelSpec, MoeSpec
from layerscale_core.models import spec as names
from layerscale_core.models.describe import unit_weights
from layerscale_core.models.families import Family

_MODEL_TENSORS = {
    names.EMBEDDING: "token_embd.weight",
    names.OUTPUT_NORM: "output_norm.weight",
    names.OUTPUT: "output.weight",
}
_SEPARATE_QKV: Mapping[str, tuple[str, ...]] = {
    "attn_q.weight": (names.QUERY,),
    "attn_k.weight": (names.KEY,),
    "attn_v.weight": (names.VALUE,),
    "attn_q.bias": (names.QUERY_BIAS,),
    "attn_k.bias": (names.KEY_BIAS,),
    "attn_v.bias": (names.VALUE_BIAS,),
}
_FUSED_QKV: Mapping[str, tuple[str, ...]] = {"attn_qkv.weight": (names.QUERY, names.KEY, names.VALUE)}
_SEPARATE_GATE: Mapping[str, tuple[str, ...]] = {"ffn_gate.weight": (names.GATE,), "ffn_up.weight": (names.UP,)}
_FUSED_GATE: Mapping[str, tuple[str, ...]] = {"ffn_up.weight": (names.GATE, names.UP)}
_OTHERS: Mapping[str, tuple[str, ...]] = {
    "attn_q_norm.weight": (names.QUERY_NORM,),
    "attn_k_norm.weight": (names.KEY_NORM,),
    "attn_output.weight": (names.ATTENTION_OUTPUT,),
    "post_attention_norm.weight": (names.ATTENTION_POST_NORM,),
    "ffn_norm.weight": (names.MLP_NORM,),
    "ffn_down.weight": (names.DOWN,),
    "ffn_gate_inp.weight": (names.ROUTER,),
    "ffn_gate_shexp.weight": (names.shared_weight(names.GATE),),
    "ffn_up_shexp.weight": (names.shared_weight(names.UP),),
    "ffn_down_shexp.weight": (names.shared_weight(names.DOWN),),
    "post_ffw_norm.weight": (names.MLP_POST_NORM,),
}
_EXPERT_TENSORS = {
    names.GATE: "ffn_gate_exps.weight",
    names.UP: "ffn_up_exps.weight",
    names.DOWN: "ffn_down_exps.weight",
}


def stored_tensors(spec: ModelSpec, family: Family, logit_scale: float = 1.0) -> Iterator[StoredTensor]:
    """Where the GGUF files of a family hold the weights of a model."""
    for weight in names.outer_shapes(spec):
        factor = logit_scale if weight == names.OUTPUT_NORM else 1.0
        yield StoredTensor(_MODEL_TENSORS[weight], (weight,), factor=factor)
    for index, layer in enumerate(spec.layers):
        needed = names.layer_shapes(spec, index).keys() - unit_weights(family, spec)
        for tensor, weights in _layer_tensors(layer, family).items():
            full_names = tuple(names.layer_weight(index, weight) for weight in weights)
            if full_names[0] in needed:
                num_entries = len(weights) if tensor.endswith("_exps.weight") else 0
                yield StoredTensor(f"blk.{index}.{tensor}", full_names, num_entries)


def _layer_tensors(layer: LayerSpec, family: Family) -> Mapping[str, tuple[str, ...]]:
    """A layer's tensors with what they hold; more than it has, where a weight is not in every model."""
    tensors: dict[str, tuple[str, ...]] = {"attn_norm.weight": (names.ATTENTION_NORM,)}
    tensors |= _FUSED_QKV if family.has_fused_qkv else _SEPARATE_QKV
    tensors |= _FUSED_GATE if family.has_fused_gate else _SEPARATE_GATE
    tensors |= _OTHERS
    if isinstance(layer.mlp, MoeSpec):
        for weight, tensor in _EXPERT_TENSORS.items():
            tensors[tensor] = tuple(names.expert_weight(expert, weight) for expert in range(layer.mlp.num_experts))
    return tensors
