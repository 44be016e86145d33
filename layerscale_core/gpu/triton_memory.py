"""What the Triton kernels take of a device."""

from __future__ import annotations

import math

import torch

from layerscale_core.gpu.matrix import device_matrix_bytes
from layerscale_core.models import LayerSpec, MlpSpec, ModelSpec
from layerscale_core.models.spec import is_router, weight_shapes
from layerscale_core.specs.memory import MemoryNeeds, StepLimits
from layerscale_core.specs.model_format import WeightSource

NUM_PARTIALS = 36 * 2**20
"""Floats of the scratch memory that programs share a tile through: a recorded step takes 35 million for 64 heads of 128
and two million tokens, as many as fit in pages of 32."""
NUM_COUNTERS = 2**16

_FLOAT_BYTES = 4


def triton_memory_needs(spec: ModelSpec, weights: WeightSource, limits: StepLimits, dtype: torch.dtype) -> MemoryNeeds:
    """See ``Kernels.memory_needs``.

    Args:
        dtype: what products are computed in.
    """
    sizes = {}
    for name, shape in weight_shapes(spec).items():
        sizes[name] = (
            _FLOAT_BYTES * math.prod(shape)
            if len(shape) == 1 or is_router(name)
            else device_matrix_bytes(weights.matrix(name, 0, 0), shape[0], shape[1], dtype)
        )
    return MemoryNeeds(sizes, _FLOAT_BYTES * _workspace_floats(spec, limits))


def _workspace_floats(spec: ModelSpec, limits: StepLimits) -> int:
    """Scratch memory, the widest layer and the logits (twice, where they are capped), as if all were floats."""
    widest = max(_layer_floats(spec, layer) for layer in spec.layers)
    logits = limits.max_logits * (2 * spec.hidden_size + 2 * spec.vocab_size)
    return NUM_PARTIALS + NUM_COUNTERS + limits.max_tokens * widest + logits


def _layer_floats(spec: ModelSpec, layer: LayerSpec) -> int:
    """A token's residual, and the larger of attention (queries, attended, what post-norms see) and MLP."""
    attention, hidden = layer.attention, spec.hidden_size
    attended = 2 * attention.num_heads * attention.head_dim + hidden
    if isinstance(layer.mlp, MlpSpec):
        return 2 * hidden + max(attended, 3 * layer.mlp.intermediate_size + hidden)
    expert = 3 * layer.mlp.expert.intermediate_size + 3 * hidden + 6 * layer.mlp.num_experts
    return 2 * hidden + max(attended, expert)
