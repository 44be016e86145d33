"""What the native executor is told of a model: its description in the native module's own terms."""

from __future__ import annotations

from typing import Any

from layerscale_core.models import Activation, AttentionSpec, LayerSpec, MlpSpec, ModelSpec, MoeSpec

_ALL_KEYS = 2**31 - 1
_NO_CAP = 0.0


def model_shape(native: Any, spec: ModelSpec, *, with_ends: bool) -> Any:
    """The module's ``ModelShape``; one without embedding and head has no vocabulary."""
    ropes = list(dict.fromkeys(layer.attention.rope for layer in spec.layers))
    return native.ModelShape(
        spec.vocab_size if with_ends else 0,
        spec.hidden_size,
        spec.norm_eps,
        spec.tied_output,
        spec.embedding_scale,
        spec.logit_softcap or _NO_CAP,
        [native.Rope(list(rope.inv_freq), rope.magnitude, rope.interleaved) for rope in ropes],
        [_layer_shape(native, layer, ropes.index(layer.attention.rope)) for layer in spec.layers],
    )


def widest_intermediate(spec: ModelSpec) -> int:
    """The most elements that an MLP of the model, or an expert, has between its matrices."""
    shared = (layer.mlp.shared for layer in spec.layers if isinstance(layer.mlp, MoeSpec))
    mlps = [*map(_mlp_of, spec.layers), *filter(None, shared)]
    return max(mlp.intermediate_size for mlp in mlps)


def _layer_shape(native: Any, layer: LayerSpec, rope: int) -> Any:
    attention, mlp, moe = layer.attention, _mlp_of(layer), layer.mlp if isinstance(layer.mlp, MoeSpec) else None
    return native.LayerShape(
        native.AttentionShape(
            attention.num_heads,
            attention.num_kv_heads,
            attention.head_dim,
            attention.scale,
            attention.window or _ALL_KEYS,
            attention.chunk or _ALL_KEYS,
            attention.softcap or _NO_CAP,
            attention.has_biases,
            attention.has_qk_norm,
            *_temperature_of(attention),
        ),
        rope,
        mlp.intermediate_size,
        mlp.activation is Activation.GELU_TANH,
        layer.has_post_norms,
        moe.num_experts if moe else 0,
        moe.num_active if moe else 0,
        moe.is_normalized if moe else False,
        moe.is_sigmoid if moe else False,
        moe.shared.intermediate_size if moe and moe.shared else 0,
    )


def _mlp_of(layer: LayerSpec) -> MlpSpec:
    """A layer's MLP, or what each of its experts is."""
    return layer.mlp.expert if isinstance(layer.mlp, MoeSpec) else layer.mlp


def _temperature_of(attention: AttentionSpec) -> tuple[int, int, float]:
    """Interval, offset and slope; a slope of 0 is none."""
    temperature = attention.temperature
    return (1, 0, 0.0) if temperature is None else (temperature.interval, temperature.offset, temperature.slope)
