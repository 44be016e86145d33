"""Tiny random GGUF files of every family, in F32, as converters write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.support.tiny_gguf import add_field, tokenizer_fields

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, NUM_EXPERTS = 128, 4, 2, 32, 96, 4
QUERY, KV = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
LAYERS = 6

BIASES = {"attn_q.bias": (QUERY,), "attn_k.bias": (KV,), "attn_v.bias": (KV,)}
QK_NORM = {"attn_q_norm.weight": (HEAD_DIM,), "attn_k_norm.weight": (HEAD_DIM,)}
POST_NORMS = {"post_attention_norm.weight": (HIDDEN,), "post_ffw_norm.weight": (HIDDEN,)}
SEPARATE = {
    "attn_q.weight": (QUERY, HIDDEN),
    "attn_k.weight": (KV, HIDDEN),
    "attn_v.weight": (KV, HIDDEN),
}
MLP = {
    "ffn_gate.weight": (INTERMEDIATE, HIDDEN),
    "ffn_up.weight": (INTERMEDIATE, HIDDEN),
    "ffn_down.weight": (HIDDEN, INTERMEDIATE),
}
EXPERTS = {
    "ffn_gate_inp.weight": (NUM_EXPERTS, HIDDEN),
    "ffn_gate_exps.weight": (NUM_EXPERTS, INTERMEDIATE, HIDDEN),
    "ffn_up_exps.weight": (NUM_EXPERTS, INTERMEDIATE, HIDDEN),
    "ffn_down_exps.weight": (NUM_EXPERTS, HIDDEN, INTERMEDIATE),
}
FUSED = {
    "attn_qkv.weight": (QUERY + 2 * KV, HIDDEN),
    "ffn_up.weight": (2 * INTERMEDIATE, HIDDEN),
    "ffn_down.weight": (HIDDEN, INTERMEDIATE),
}
FUSED_GATE = {"ffn_up.weight": (2 * INTERMEDIATE, HIDDEN), "ffn_down.weight": (HIDDEN, INTERMEDIATE)}
SHARED_EXPERT = {
    "ffn_gate_shexp.weight": (INTERMEDIATE, HIDDEN),
    "ffn_up_shexp.weight": (INTERMEDIATE, HIDDEN),
    "ffn_down_shexp.weight": (HIDDEN, INTERMEDIATE),
}
DENSE = SEPARATE | MLP

FAMILIES: Mapping[str, tuple[str, Mapping[str, tuple[int, ...]], Mapping[str, Any]]] = {
    "llama": ("llama", DENSE, {}),
    "llama with biases": ("llama", DENSE | BIASES, {}),
    "mixtral": ("llama", SEPARATE | EXPERTS, {"expert_count": NUM_EXPERTS, "expert_used_count": 2}),
    "llama4": (
        "llama4",
        SEPARATE | EXPERTS | SHARED_EXPERT,
        {
            "expert_count": NUM_EXPERTS,
            "expert_used_count": 1,
            "expert_feed_forward_length": INTERMEDIATE,
            "interleave_moe_layer_step": 1,
            "feed_forward_length": 200,
        },
    ),
    "mistral3": (
        "mistral3",
        DENSE,
        {
            "attention.temperature_scale": 0.1,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32,
            "rope.scaling.yarn_log_multiplier": 1.0,
        },
    ),
    "granite": (
        "granite",
        DENSE,
        {"embedding_scale": 12.0, "residual_scale": 0.22, "logit_scale": 8.0, "attention.scale": 0.1},
    ),
    "glm4": ("glm4", SEPARATE | FUSED_GATE | BIASES | POST_NORMS, {"rope.dimension_count": HEAD_DIM // 2}),
    "smollm3": ("smollm3", DENSE, {}),
    "qwen2": ("qwen2", DENSE | BIASES, {}),
    "qwen3": ("qwen3", DENSE | QK_NORM, {}),
    "qwen3moe": (
        "qwen3moe",
        SEPARATE | QK_NORM | EXPERTS,
        {
            "expert_count": NUM_EXPERTS,
            "expert_used_count": 2,
            "expert_feed_forward_length": INTERMEDIATE,
            "feed_forward_length": 200,
        },
    ),
    "gemma": ("gemma", DENSE, {}),
    "gemma2": (
        "gemma2",
        DENSE | POST_NORMS,
        {"attention.sliding_window": 24, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
    ),
    "gemma3": (
        "gemma3",
        DENSE | QK_NORM | POST_NORMS,
        {"attention.sliding_window": 24, "rope.freq_base": 1_000_000.0},
    ),
    "gemma3 with a stretched context": (
        "gemma3",
        DENSE | QK_NORM | POST_NORMS,
        {"attention.sliding_window": 24, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
    "phi3": ("phi3", FUSED, {}),
    "phi3 with a part of each head rotated": ("phi3", FUSED, {"rope.dimension_count": 24}),
}
"""Architecture, tensors of a layer beside its norms and its output, and keys below the architecture's name."""


def write_tiny_family(path: Path, family: str, *, metadata: Mapping[str, object] | None = None) -> Path:
    """Write a valid model of some hundred thousand random weights and return its path.

    Args:
        metadata: keys to add or replace, by full name; None removes one.
    """
    architecture, tensors, keys = FAMILIES[family]
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    tokens = tokenizer_fields()
    fields = {
        "context_length": 512,
        "embedding_length": HIDDEN,
        "block_count": LAYERS,
        "feed_forward_length": INTERMEDIATE,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_DIM,
        "attention.value_length": HEAD_DIM,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 10_000.0,
        "rope.dimension_count": HEAD_DIM,
        **keys,
    }
    named = {f"{architecture}.{key}": value for key, value in fields.items()}
    for key, value in {**tokens, **named, **(metadata or {})}.items():
        add_field(writer, key, value)
    vocab_size = len(tokens["tokenizer.ggml.tokens"])
    outer = {"token_embd.weight": (vocab_size, HIDDEN), "output_norm.weight": (HIDDEN,)}
    if not architecture.startswith("gemma"):
        outer["output.weight"] = (vocab_size, HIDDEN)
    layer = {
        "attn_norm.weight": (HIDDEN,),
        "attn_output.weight": (HIDDEN, QUERY),
        "ffn_norm.weight": (HIDDEN,),
        **tensors,
    }
    shapes = {**outer, **{f"blk.{index}.{name}": shape for index in range(LAYERS) for name, shape in layer.items()}}
    for name, shape in shapes.items():
        writer.add_tensor(name, _values(rng, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    return rng.normal(0, 1.5 * shape[-1] ** -0.5, shape).astype(np.float32)
