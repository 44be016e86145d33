"""The family ``llama``: Llama 1 to 3, and the many models that are built like them."""

from __future__ import annotations

import dataclasses
import math

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.formats.gguf.metadata import Metadata
from layerscale_core.formats.gguf.rope import RopeScaling, read_rope, read_rope_scaling
from layerscale_core.formats.gguf.tensors import GgufTensors
from layerscale_core.models import AttentionSpec, LayerSpec, MlpSpec, ModelSpec
from layerscale_core.models.spec import weight_shapes

# Far above any model; they keep a hostile file from making us build large tables before its tensors refute it.
_MAX_LAYERS = 4_096
_MAX_WIDTH = 2**20
_MAX_HEAD_DIM = 2**14


def describe_llama(metadata: Metadata, tensors: GgufTensors) -> ModelSpec:
    """Describe a model of architecture ``llama``.

    Its GGUF files store the rows of the query and key matrices in an order that puts the two halves of a rotated pair
    next to each other.

    Raises:
        ModelFileError: a key is missing or makes no sense.
        UnsupportedModelError: a mixture of experts, or values of another width than keys.
    """
    if metadata.integer("llama.expert_count", default=0, minimum=0):
        raise UnsupportedModelError(f"{metadata.path}: mixture-of-experts models cannot be run yet")
    hidden_size = metadata.integer("llama.embedding_length", maximum=_MAX_WIDTH)
    num_layers = metadata.integer("llama.block_count", maximum=_MAX_LAYERS)
    scaling = read_rope_scaling(metadata, "llama")
    attention = _attention(metadata, tensors, hidden_size, scaling)
    mlp = MlpSpec(metadata.integer("llama.feed_forward_length", maximum=_MAX_WIDTH))
    spec = ModelSpec(
        architecture="llama",
        vocab_size=len(metadata.array("tokenizer.ggml.tokens")),
        hidden_size=hidden_size,
        max_context_len=scaling.max_context_len,
        norm_eps=metadata.number("llama.attention.layer_norm_rms_epsilon"),
        layers=(LayerSpec(attention, mlp),) * num_layers,
        tied_output="output.weight" not in tensors.infos,
        num_parameters=0,
    )
    return dataclasses.replace(spec, num_parameters=sum(math.prod(shape) for shape in weight_shapes(spec).values()))


def _attention(metadata: Metadata, tensors: GgufTensors, hidden_size: int, scaling: RopeScaling) -> AttentionSpec:
    num_heads = metadata.integer("llama.attention.head_count", maximum=_MAX_WIDTH)
    num_kv_heads = metadata.integer("llama.attention.head_count_kv", default=num_heads, maximum=num_heads)
    if num_heads % num_kv_heads:
        metadata.fail("llama.attention.head_count_kv", f"{num_kv_heads} does not divide the {num_heads} query heads")
    head_dim = _head_dim(metadata, hidden_size, num_heads)
    rope = read_rope(metadata, tensors, "llama", scaling, head_dim)
    return AttentionSpec(num_heads, num_kv_heads, head_dim, scale=head_dim**-0.5, rope=rope)


def _head_dim(metadata: Metadata, hidden_size: int, num_heads: int) -> int:
    key = "llama.attention.key_length"
    if key not in metadata and hidden_size % num_heads:
        metadata.fail("llama.attention.head_count", f"{num_heads} heads do not divide the width {hidden_size}")
    head_dim = metadata.integer(key, default=hidden_size // num_heads, maximum=_MAX_HEAD_DIM)
    value_dim = metadata.integer("llama.attention.value_length", default=head_dim)
    if value_dim != head_dim:
        raise UnsupportedModelError(
            f"{metadata.path}: values of width {value_dim} beside keys of width {head_dim} cannot be run yet"
        )
    return head_dim
