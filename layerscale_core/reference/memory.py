"""What the reference kernels take: float32 everywhere."""

from __future__ import annotations

import math

from layerscale_core.models import LayerSpec, MlpSpec, ModelSpec
from layerscale_core.models.spec import weight_shapes
from layerscale_core.specs.memory import MemoryNeeds, StepLimits

_FLOAT_BYTES = 4


def reference_memory_needs(spec: ModelSpec, limits: StepLimits) -> MemoryNeeds:
    """See ``Device.memory_needs``, for core's forward pass over the reference kernels."""
    weights = {name: _FLOAT_BYTES * math.prod(shape) for name, shape in weight_shapes(spec).items()}
    widest = max(max(_attention_floats(spec, layer, limits), _mlp_floats(spec, layer, limits)) for layer in spec.layers)
    logits = limits.max_logits * (2 * spec.hidden_size + 2 * spec.vocab_size)  # the last ones live until the next
    return MemoryNeeds(weights, _FLOAT_BYTES * (widest + logits))


def _attention_floats(spec: ModelSpec, layer: LayerSpec, limits: StepLimits) -> int:
    """Attention at its peak.

    Residual, norm, queries thrice (plain, scaled, attended), keys and values; and one sequence's context: its keys, and
    its values while they are decoded and transposed, in up to six arrays where they are stored in 4 bits.
    """
    attention = layer.attention
    query_size, kv_size = attention.num_heads * attention.head_dim, attention.num_kv_heads * attention.head_dim
    activations = limits.max_tokens * (2 * spec.hidden_size + 3 * query_size + 2 * kv_size)
    context = limits.max_context_len * (7 * kv_size + 3 * attention.num_heads)
    return activations + context


def _mlp_floats(spec: ModelSpec, layer: LayerSpec, limits: StepLimits) -> int:
    """A gated MLP at its peak: residual, norm, gate, up, and the gated product with two temporaries.

    A mixture has beside them the scores, their order and the weights, the sum, and for one expert what goes in, in
    tiles, and comes out: at worst every token.
    """
    if isinstance(layer.mlp, MlpSpec):
        return limits.max_tokens * (2 * spec.hidden_size + 5 * layer.mlp.intermediate_size)
    moe = layer.mlp
    widest = max(moe.expert.intermediate_size, 0 if moe.shared is None else moe.shared.intermediate_size)
    return limits.max_tokens * (6 * spec.hidden_size + 5 * moe.num_experts + 5 * widest)
