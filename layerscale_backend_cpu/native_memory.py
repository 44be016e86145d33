"""What the native executor takes, computed from a model's description: the sizes of ``native/matrix.h``, in words."""

from __future__ import annotations

from layerscale_backend_cpu.native_shapes import widest_intermediate
from layerscale_core.models import DenseMatrix, Matrix, ModelSpec, MoeSpec
from layerscale_core.models.spec import weight_shapes
from layerscale_core.specs import MemoryNeeds, StepLimits, WeightSource

_LANES = 16
"""Rows in a panel."""
_GROUP = 32
"""Columns that are packed together."""
_WORDS_PER_GROUP = {4: 4, 6: 6, 8: 8}
"""32-bit words that hold a row's codes of one group, by bits."""
_ALIGNMENT = 64
_TOKEN_TILE = 8
_FLOAT_BYTES = 4


def native_memory_needs(spec: ModelSpec, weights: WeightSource, limits: StepLimits) -> MemoryNeeds:
    """See ``Device.memory_needs``."""
    sizes = {
        name: _FLOAT_BYTES * shape[0] if len(shape) == 1 else packed_bytes(shape, weights.matrix(name, 0, 0))
        for name, shape in weight_shapes(spec).items()
    }
    return MemoryNeeds(sizes, _workspace_bytes(spec, limits))


def packed_bytes(shape: tuple[int, ...], layout: Matrix) -> int:
    """Bytes of a matrix [rows, cols] in panels of 16 rows; only the layout's kind matters, not its rows."""
    rows, cols = shape
    if isinstance(layout, DenseMatrix):
        row_bytes = cols * layout.data.itemsize
    else:
        num_scales = (1 if layout.mins is None else 2) * (_GROUP // layout.group_size)
        row_bytes = cols // _GROUP * (2 * num_scales + 4 * _WORDS_PER_GROUP[layout.bits])
    total = -(-rows // _LANES) * _LANES * row_bytes
    return -(-total // _ALIGNMENT) * _ALIGNMENT


def _workspace_bytes(spec: ModelSpec, limits: StepLimits) -> int:
    """The buffers of ``native/executor.h``, at their largest."""
    tokens, logits, hidden = limits.max_tokens, limits.max_logits, spec.hidden_size
    query = max(layer.attention.num_heads * layer.attention.head_dim for layer in spec.layers)
    kv = max(layer.attention.num_kv_heads * layer.attention.head_dim for layer in spec.layers)
    intermediate = widest_intermediate(spec)
    rotary = sum({layer.attention.rope: layer.attention.rope.rotary_dim for layer in spec.layers}.values())
    floats = tokens * (hidden + 2 * query + 2 * kv + 2 * intermediate + rotary)
    floats += max(tokens, logits) * hidden + logits * (hidden + spec.vocab_size)
    experts = max(layer.mlp.num_experts if isinstance(layer.mlp, MoeSpec) else 0 for layer in spec.layers)
    if experts or any(layer.has_post_norms for layer in spec.layers):
        floats += tokens * hidden
    if experts:
        floats += tokens * (experts + 2 * hidden)
    return _FLOAT_BYTES * floats + _code_bytes(max(tokens, logits), max(hidden, query, intermediate))


def _code_bytes(num_tokens: int, cols: int) -> int:
    """Activations with a scale and three sums a group; see ``native/activations.h``.

    As 8-bit codes, which take more than those of 16: each group has room for residuals with a scale, and for a bit.
    """
    tiles, groups = -(-num_tokens // _TOKEN_TILE), cols // _GROUP
    codes, residuals = _GROUP, _GROUP + _FLOAT_BYTES
    return tiles * groups * (_TOKEN_TILE * (codes + residuals + 4 * _FLOAT_BYTES) + 1)
