"""GGUF's names for a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layerscale_core.formats.weights import StoredTensor
from layerscale_core.models import LayerSpec, ModelSpec, MoeSpec
from layerscale_core.models import spec as names

_MODEL_TENSORS = {
    names.EMBEDDING: "token_embd.weight",
    names.OUTPUT_NORM: "output_norm.weight",
    names.OUTPUT: "output.weight",
}
_PROJECTIONS: Mapping[str, tuple[str, ...]] = {
    "attn_q.weight": (names.QUERY,),
    "attn_k.weight": (names.KEY,),
    "attn_v.weight": (names.VALUE,),
    "attn_q.bias": (names.QUERY_BIAS,),
    "attn_k.bias": (names.KEY_BIAS,),
    "attn_v.bias": (names.VALUE_BIAS,),
    "ffn_gate.weight": (names.GATE,),
    "ffn_up.weight": (names.UP,),
}
_FUSED_PROJECTIONS: Mapping[str, tuple[str, ...]] = {
    "attn_qkv.weight": (names.QUERY, names.KEY, names.VALUE),
    "ffn_up.weight": (names.GATE, names.UP),
}
_OTHERS: Mapping[str, tuple[str, ...]] = {
    "attn_q_norm.weight": (names.QUERY_NORM,),
    "attn_k_norm.weight": (names.KEY_NORM,),
    "attn_output.weight": (names.ATTENTION_OUTPUT,),
    "post_attention_norm.weight": (names.ATTENTION_POST_NORM,),
    "ffn_norm.weight": (names.MLP_NORM,),
    "ffn_down.weight": (names.DOWN,),
    "ffn_gate_inp.weight": (names.ROUTER,),
    "post_ffw_norm.weight": (names.MLP_POST_NORM,),
}
_EXPERT_TENSORS = {
    names.GATE: "ffn_gate_exps.weight",
    names.UP: "ffn_up_exps.weight",
    names.DOWN: "ffn_down_exps.weight",
}


def stored_tensors(spec: ModelSpec, *, is_fused: bool) -> Iterator[StoredTensor]:
    """Where a GGUF file holds the weights of a model."""
    for weight in names.outer_shapes(spec):
        yield StoredTensor(_MODEL_TENSORS[weight], (weight,))
    for index, layer in enumerate(spec.layers):
        needed = names.layer_shapes(spec, index).keys()
        for tensor, weights in _layer_tensors(layer, is_fused=is_fused).items():
            full_names = tuple(names.layer_weight(index, weight) for weight in weights)
            if full_names[0] in needed:
                yield StoredTensor(f"blk.{index}.{tensor}", full_names, is_stacked=tensor.endswith("_exps.weight"))


def _layer_tensors(layer: LayerSpec, *, is_fused: bool) -> Mapping[str, tuple[str, ...]]:
    """A layer's tensors with what they hold; more than it has, where a weight is not in every model."""
    tensors: dict[str, tuple[str, ...]] = {"attn_norm.weight": (names.ATTENTION_NORM,)}
    tensors |= _FUSED_PROJECTIONS if is_fused else _PROJECTIONS
    tensors |= _OTHERS
    if isinstance(layer.mlp, MoeSpec):
        for weight, tensor in _EXPERT_TENSORS.items():
            tensors[tensor] = tuple(names.expert_weight(expert, weight) for expert in range(layer.mlp.num_experts))
    return tensors
