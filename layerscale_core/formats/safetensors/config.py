"""From a ``config.json`` to the numbers that describe a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.formats.json_file import read_json_object
from layerscale_core.formats.limits import MAX_HEAD_DIM, MAX_LAYERS, MAX_WIDTH
from layerscale_core.formats.metadata import Metadata
from layerscale_core.formats.safetensors.layers import (
    read_experts,
    read_temperature,
    read_unrotated_layers,
    read_windowed_layers,
)
from layerscale_core.formats.safetensors.rope import RopeConfig
from layerscale_core.models import Activation
from layerscale_core.models.describe import Numbers
from layerscale_core.models.families import BY_HUGGINGFACE, Family

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 4_000_000
MAX_DEPTH = 5

_TEXT_CONFIG = "text_config"
"""Where the language model is described in a model that has other parts too."""

_AROUND_OTHERS = ("mistral3",)
"""Types of models with other parts whose language model is of a type of its own."""

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
    "llama4": {
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "rope_theta": 500_000.0,
        "floor_scale": 8192,
        "attn_scale": 0.1,
        "attention_chunk_size": 8192,
        "intermediate_size_mlp": 16_384,
    },
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
    inner = config.get(_TEXT_CONFIG)
    name = Metadata(config, {}, str(path)).text("model_type")
    if name in _AROUND_OTHERS and isinstance(inner, dict):
        name = Metadata(inner, {}, str(path)).text("model_type")
    if name not in BY_HUGGINGFACE:
        known = ", ".join(sorted(BY_HUGGINGFACE))
        raise UnsupportedModelError(f"{path}: the model type {name[:64]!r} is not supported; known: {known}")
    family = BY_HUGGINGFACE[name]
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
    rope = RopeConfig(config, head_dim, family)
    intermediate_size = config.integer("intermediate_size", maximum=MAX_WIDTH)
    return Numbers(
        vocab_size=config.integer("vocab_size", maximum=MAX_WIDTH * 16),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=_num_kv_heads(config, num_heads),
        head_dim=head_dim,
        intermediate_size=config.integer("intermediate_size_mlp", default=intermediate_size, maximum=MAX_WIDTH),
        norm_eps=config.number("rms_norm_eps", default=1e-6),
        max_context_len=rope.max_context_len,
        tied_output=config.flag("tie_word_embeddings", default=family.has_tied_output),
        rope=rope.rope(),
        local_rope=None if family.local_rope_base is None else rope.local_rope(family.local_rope_base),
        window=_window(config, family),
        chunk=_chunk(config, family),
        windowed_layers=read_windowed_layers(config, num_layers),
        unrotated_layers=read_unrotated_layers(config, num_layers),
        scale=_scale(config, family),
        score_softcap=_softcap(config, "attn_logit_softcapping", family.score_softcap),
        logit_softcap=_softcap(config, "final_logit_softcapping", family.logit_softcap),
        has_biases=config.flag("attention_bias", default=False),
        has_qk_norm=config.flag("use_qk_norm", default=True),
        temperature=read_temperature(config),
        embedding_scale=config.number("embedding_multiplier", default=1.0),
        residual_scale=config.number("residual_multiplier", default=1.0),
        logit_scale=1 / config.number("logits_scaling", default=1.0),
        experts=read_experts(config, family, num_layers),
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


def _chunk(config: Metadata, family: Family) -> int | None:
    return None if family.chunk is None else config.integer("attention_chunk_size", default=family.chunk)


def _scale(config: Metadata, family: Family) -> float | None:
    """None: the usual one."""
    if family.name in _QUERY_SCALAR:
        return float(config.number("query_pre_attn_scalar", default=_QUERY_SCALAR[family.name]) ** -0.5)
    return config.number("attention_multiplier", default=1.0) if family.name == "granite" else None


def _softcap(config: Metadata, key: str, default: float | None) -> float | None:
    """None also where the file says null, which is not the same as saying nothing."""
    if key in config:
        return config.number(key)
    return None if key in config.values else default
