"""A model of ``transformers`` as a GGUF file in F32, as converters write it, by the ``gguf`` package's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.support.tiny_gguf import add_field

_ARCHITECTURES = {"mixtral": "llama", "mistral": "llama", "gemma3_text": "gemma3", "qwen3_moe": "qwen3moe"}
_KEYS = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "head_dim": "attention.key_length",
    "sliding_window": "attention.sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "num_experts": "expert_count",
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "attention_multiplier": "attention.scale",
    "logits_scaling": "logit_scale",
}
_ROWS_IN_PAIRS = {"llama", "smollm3", "granite"}
"""Architectures whose files put rotated pairs side by side."""


def convert_to_gguf(model: Any, path: Path) -> Path:
    """Write a model of ordinary rotation and return the path."""
    config = model.config.to_dict()
    architecture = _ARCHITECTURES.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(path, architecture)
    rope = config["rope_parameters"]
    base = rope.get("full_attention", rope)["rope_theta"]
    named = {gguf_key: config[key] for key, gguf_key in _KEYS.items() if config.get(key) is not None}
    named |= {"rope.freq_base": float(base), "attention.value_length": named.get("attention.key_length")}
    if "partial_rotary_factor" in rope:
        named["rope.dimension_count"] = int(_head_dim(config) * rope["partial_rotary_factor"])
    for key, value in named.items():
        add_field(writer, f"{architecture}.{key}", value)
    add_field(writer, "tokenizer.ggml.tokens", [f"<{index}>" for index in range(config["vocab_size"])])
    for name, values in _tensors(model, architecture, config):
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(model: Any, architecture: str, config: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    enum = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(enum, config["num_hidden_layers"])
    for name, weight in model.state_dict().items():
        values = weight.numpy()
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        if architecture in _ROWS_IN_PAIRS and name.endswith(("q_proj.weight", "k_proj.weight")):
            values = _in_pairs(values, _head_dim(config))
        if name.endswith("experts.gate_up_proj"):
            prefix = name.removesuffix("gate_up_proj")
            for part, half in zip(("gate_proj", "up_proj"), np.split(values, 2, axis=1), strict=True):
                yield f"{names.get_name(prefix + part)}.weight", half
            continue
        suffix = ".bias" if name.endswith(".bias") else ".weight"
        yield names.get_name(name.removesuffix(suffix)) + suffix, values


def _head_dim(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _in_pairs(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    halves = rows.reshape(-1, 2, head_dim // 2, rows.shape[-1])
    return halves.swapaxes(1, 2).reshape(rows.shape)
