"""Tiny random checkpoints of every family, made and saved by ``transformers``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMON = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
DIVISORS = [1.0, 1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0]
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def rope(kind: str, **keys: Any) -> dict[str, Any]:
    """The keys about rotation."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **keys}}


MINISTRAL3 = {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
LLAMA4 = {
    **EXPERTS,
    "num_experts_per_tok": 1,
    "num_hidden_layers": 5,
    "intermediate_size_mlp": 160,
    "head_dim": 16,
    "attention_chunk_size": 24,
    "floor_scale": 10,
    "attn_scale": 0.3,
}


FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with a tied head": ("llama", {"tie_word_embeddings": True}),
    "llama with linear scaling": ("llama", rope("linear", factor=4.0)),
    "llama 3": (
        "llama",
        rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
    ),
    "llama with YaRN": ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=128)),
    "llama with YaRN and its scales": (
        "llama",
        rope("yarn", factor=4.0, original_max_position_embeddings=128, mscale=0.7, mscale_all_dim=1.0),
    ),
    "llama with dynamic scaling": ("llama", rope("dynamic", factor=4.0)),
    "llama 4": ("llama4_text", LLAMA4),
    "llama 4 without norms of queries and keys, with dense layers": (
        "llama4_text",
        {**LLAMA4, "use_qk_norm": False, "interleave_moe_layer_step": 2, "num_experts_per_tok": 2},
    ),
    "granite": (
        "granite",
        {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22, "attention_multiplier": 0.1},
    ),
    "glm": ("glm", {"head_dim": 16}),
    "glm4": ("glm4", {"head_dim": 16}),
    "ministral": (
        "ministral",
        {"sliding_window": 16, "head_dim": 16, "layer_types": ["full_attention", *["sliding_attention"] * 2]},
    ),
    "ministral3": (
        "ministral3",
        rope("yarn", factor=4.0, original_max_position_embeddings=32, **MINISTRAL3),
    ),
    "mistral": ("mistral", {"sliding_window": 16}),
    "mistral without a window": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "mixtral": ("mixtral", EXPERTS),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1]}),
    "qwen2": ("qwen2", {}),
    "qwen2 with windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3_moe": (
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 32},
    ),
    "qwen3_moe normalised, with a dense layer": (
        "qwen3_moe",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
            "head_dim": 16,
        },
    ),
    "gemma": ("gemma", {"head_dim": 32}),
    "gemma2": ("gemma2", {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 24}),
    "gemma3_text": (
        "gemma3_text",
        {"head_dim": 32, "sliding_window": 16, "num_hidden_layers": 7, "query_pre_attn_scalar": 32},
    ),
    "phi3": ("phi3", {}),
    "phi3 with a window": ("phi3", {"sliding_window": 16}),
    "phi3 with LongRoPE": (
        "phi3",
        {
            **rope("longrope", short_factor=[1.0] * 8, long_factor=DIVISORS, partial_rotary_factor=1.0),
            "original_max_position_embeddings": 64,
        },
    ),
    "phi4 mini": (
        "phi3",
        {
            **rope("longrope", short_factor=[1.0] * 6, long_factor=DIVISORS[:6], partial_rotary_factor=0.75),
            "original_max_position_embeddings": 64,
            "tie_word_embeddings": True,
        },
    ),
}
"""Model type, and what its configuration changes of the common numbers."""


def save_tiny_checkpoint(
    folder: Path, family: str, *, dtype: str = "float32", max_shard_size: str = "1GB", **further_changes: Any
) -> Any:
    """Make a model of random weights, save it, and return it in float32, as it was saved.

    Args:
        further_changes: of its configuration.
    """
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    model_type, changes = FAMILIES[family]
    config = AutoConfig.for_model(model_type, **{**COMMON, **changes, **further_changes})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1.5 * weight.shape[-1] ** -0.5)
            elif "norm" in name:
                weight.add_(torch.empty_like(weight).uniform_(-0.2, 0.2))
            else:
                weight.uniform_(-0.5, 0.5)
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return model.float().eval()
