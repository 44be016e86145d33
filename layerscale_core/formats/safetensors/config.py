"""From a ``config.json`` to the numbers that describe a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.formats.json_file import read_json_object
from layerscale_core.formats.limits import MAX_EXPERTS, MAX_HEAD_DIM, MAX_LAYERS, MAX_WIDTH, check_num_experts
from layerscale_core.formats.metadata import Metadata
from layerscale_core.formats.safetensors.rope import RopeConfig
from layerscale_core.models import Activation
from layerscale_core.models.families import BY_HUGGINGFACE, Experts, Family, Numbers

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 4_000_000
MAX_DEPTH = 5

_TEXT_CONFIG = "text_config"
"""Where the language model is described in a model that has other parts too."""

_ACTIVATIONS = {
    Activation.SILU: {"silu", "swish"},
    Activation.GELU_TANH: {"gelu_pytorch_tanh", "gelu_new", "gelu"},  # Gemma 1 says "gelu" and means this one
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3": {
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131_072,
        "rope_theta": 1_000_000.0,
        "sliding_window": 4096,
    },
    "mixtral": {"rope_theta": 1_000_000.0},
}
"""What files leave out because it is the class's own default, where some do."""

_HEAD_DIM = {"gemma": 256, "gemma2": 256, "gemma3": 256}
_QUERY_SCALAR = {"gemma2": 256, "gemma3": 256}


def read_config(folder: Path) -> tuple[Metadata, Family]:
    """A folder's ``config.json``, keys of nested objects joined with dots, and the family of its model.

    Raises:
        ModelFileError: missing, or no JSON object.
        UnsupportedModelError: a family that this build does not know.
    """
    path = folder / CONFIG_FILE
    config = read_json_object(path, MAX_CONFIG_BYTES)
    name = Metadata(config, {}, str(path)).text("model_type")
    if name not in BY_HUGGINGFACE:
        known = ", ".join(sorted(BY_HUGGINGFACE))
        raise UnsupportedModelError(f"{path}: the model type {name[:64]!r} is not supported; known: {known}")
    family = BY_HUGGINGFACE[name]
    inner = config.get(_TEXT_CONFIG)
    if isinstance(inner, dict):
        config = {**config, **inner}
    defaults = _DEFAULTS.get(family.name, {})
    return Metadata({**defaults, **_flat(config)}, {}, str(path)), family


def read_numbers(config: Metadata, family: Family) -> Numbers:
    """The numbers of a model.

    Raises:
        ModelFileError: a key is missing or makes no sense.
        UnsupportedModelError: something that this build cannot compute.
    """
    _check_supported(config, family)
    hidden_size = config.integer("hidden_size", maximum=MAX_WIDTH)
    num_layers = config.integer("num_hidden_layers", maximum=MAX_LAYERS)
    num_heads = config.integer("num_attention_heads", maximum=MAX_WIDTH)
    head_dim = _head_dim(config, family, hidden_size, num_heads)
    rope = RopeConfig(config, head_dim, default_base=10_000.0)
    scalar = config.number("query_pre_attn_scalar", default=_QUERY_SCALAR.get(family.name, head_dim))
    return Numbers(
        vocab_size=config.integer("vocab_size", maximum=MAX_WIDTH * 16),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=_num_kv_heads(config, num_heads),
        head_dim=head_dim,
        intermediate_size=config.integer("intermediate_size", maximum=MAX_WIDTH),
        norm_eps=config.number("rms_norm_eps", default=1e-6),
        max_context_len=rope.max_context_len,
        tied_output=config.flag("tie_word_embeddings", default=family.has_tied_output),
        rope=rope.rope(),
        local_rope=None if family.local_rope_base is None else rope.local_rope(family.local_rope_base),
        window=_window(config, family),
        windowed_layers=_windowed_layers(config, num_layers),
        unrotated_layers=_unrotated_layers(config, num_layers),
        scale=scalar**-0.5 if family.name in _QUERY_SCALAR else None,
        score_softcap=_softcap(config, "attn_logit_softcapping", family.score_softcap),
        logit_softcap=_softcap(config, "final_logit_softcapping", family.logit_softcap),
        has_biases=config.flag("attention_bias", default=False),
        experts=_experts(config, family, num_layers),
    )


def _flat(config: Mapping[str, Any], prefix: str = "", depth: int = MAX_DEPTH) -> dict[str, object]:
    """Every value that is no object, by its keys joined with dots; objects deep inside are left out."""
    values: dict[str, object] = {}
    for key, value in config.items():
        if not isinstance(value, dict):
            values[prefix + key] = value
        elif depth > 1:
            values |= _flat(value, f"{prefix}{key}.", depth - 1)
    return values


def _check_supported(config: Metadata, family: Family) -> None:
    asked = next((key for key in ("hidden_activation", "hidden_act") if key in config), None)
    if asked is not None and config.text(asked) not in _ACTIVATIONS[family.activation]:
        raise UnsupportedModelError(
            f"{config.path}: {family.name} models with the activation {config.text(asked)[:64]!r} cannot be run yet"
        )
    if config.flag("use_bidirectional_attention", default=False):
        raise UnsupportedModelError(f"{config.path}: a model that looks ahead of each token does not generate text")


def _head_dim(config: Metadata, family: Family, hidden_size: int, num_heads: int) -> int:
    if "head_dim" not in config and family.name not in _HEAD_DIM and hidden_size % num_heads:
        config.fail("num_attention_heads", f"{num_heads} heads do not divide the width {hidden_size}")
    default = _HEAD_DIM.get(family.name, hidden_size // num_heads)
    return config.integer("head_dim", default=default, maximum=MAX_HEAD_DIM)


def _num_kv_heads(config: Metadata, num_heads: int) -> int:
    num_kv_heads = config.integer("num_key_value_heads", default=num_heads, maximum=num_heads)
    if num_heads % num_kv_heads:
        config.fail("num_key_value_heads", f"{num_kv_heads} does not divide the {num_heads} query heads")
    return num_kv_heads


def _window(config: Metadata, family: Family) -> int | None:
    """None also where a family of windows by choice was not asked for them."""
    is_used = config.flag("use_sliding_window", default=not family.name.startswith(("qwen", "smollm")))
    default = family.window if "sliding_window" not in config.values else None
    return config.integer("sliding_window", default=default or 0, minimum=0) or None if is_used else None


def _windowed_layers(config: Metadata, num_layers: int) -> frozenset[int] | None:
    if "layer_types" in config:
        kinds = config.array("layer_types")
        if len(kinds) != num_layers:
            config.fail("layer_types", f"expected {num_layers} entries, found {len(kinds)}")
        for kind in kinds:
            if kind not in ("full_attention", "sliding_attention"):
                raise UnsupportedModelError(f"{config.path}: layers of type {str(kind)[:64]!r} cannot be run yet")
        return frozenset(index for index, kind in enumerate(kinds) if kind == "sliding_attention")
    if "sliding_window_pattern" in config:
        interval = config.integer("sliding_window_pattern")
        return frozenset(index for index in range(num_layers) if (index + 1) % interval)
    if "max_window_layers" in config:
        return frozenset(range(config.integer("max_window_layers", minimum=0), num_layers))
    return None


def _unrotated_layers(config: Metadata, num_layers: int) -> frozenset[int] | None:
    """From a list with 1 for every layer that is rotated, and 0 for the others."""
    if "no_rope_layers" not in config:
        return None
    rotated = config.array("no_rope_layers")
    if len(rotated) != num_layers or not all(type(flag) is int and flag in (0, 1) for flag in rotated):
        config.fail("no_rope_layers", f"expected {num_layers} times 0 or 1")
    return frozenset(index for index, flag in enumerate(rotated) if flag == 0)


def _softcap(config: Metadata, key: str, default: float | None) -> float | None:
    """None also where the file says null, which is not the same as saying nothing."""
    if key in config:
        return config.number(key)
    return None if key in config.values else default


def _experts(config: Metadata, family: Family, num_layers: int) -> Experts | None:
    key = next((key for key in ("num_local_experts", "num_experts") if key in config), None)
    if key is None:
        return None
    num_experts = config.integer(key, maximum=MAX_EXPERTS)
    check_num_experts(config, key, num_layers, num_experts)
    width = config.integer("intermediate_size", maximum=MAX_WIDTH)
    return Experts(
        num_experts,
        config.integer("num_experts_per_tok", maximum=num_experts),
        config.integer("moe_intermediate_size", default=width, maximum=MAX_WIDTH),
        config.flag("norm_topk_prob", default=family.name == "mixtral"),
        _dense_layers(config, num_layers),
    )


def _dense_layers(config: Metadata, num_layers: int) -> frozenset[int]:
    interval = config.integer("decoder_sparse_step", default=1)
    named = config.values.get("mlp_only_layers") or []
    if not isinstance(named, list) or not all(type(index) is int for index in named):
        config.fail("mlp_only_layers", "expected whole numbers")
    return frozenset(index for index in range(num_layers) if index in named or (index + 1) % interval)
