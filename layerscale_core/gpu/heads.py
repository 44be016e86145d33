"""From activations to queries, keys and values in one kernel: ``project_heads``."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from layerscale_core.gpu.kernels.heads import project_heads_kernel
from layerscale_core.gpu.kv_cache import KVCache
from layerscale_core.gpu.launch import ceil_div, launch
from layerscale_core.gpu.linear import Norm, layout_constants, split_product
from layerscale_core.gpu.matrix import DeviceMatrix
from layerscale_core.gpu.rope import DeviceRope
from layerscale_core.gpu.step import StepTensors
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.gpu.workspace import Workspace
from layerscale_core.models import AttentionSpec


@dataclass(frozen=True, slots=True)
class HeadProjection:
    """Whole heads of a layer's queries, keys and values, in this order.

    One matrix holds them all where their layouts are equal; otherwise there is a projection for each that differs.

    Attributes:
        matrix: [heads * head_dim, hidden].
        first_head: the number of its first head.
        bias: [heads * head_dim].
    """

    matrix: DeviceMatrix
    first_head: int = 0
    bias: Tensor | None = None


def project_heads(
    x: Tensor,
    projection: HeadProjection,
    step: StepTensors,
    cache: KVCache,
    layer: int,
    *,
    norm: Norm,
    rope: DeviceRope,
    spec: AttentionSpec,
    query_out: Tensor,
    workspace: Workspace,
    tuning: Tuning,
    query_norm: Tensor | None = None,
    key_norm: Tensor | None = None,
) -> None:
    """Norm, product, bias, norm of heads, RoPE; keys and values go into the cache, queries into ``query_out``.

    Where the cache holds codes, queries are rotated as its keys are.

    Args:
        x: [T, hidden], any float dtype.
        query_out: [T, num_heads * head_dim]; only the projection's own heads are written.
        query_norm, key_norm: [head_dim], both or none.
    """
    rows, cols = projection.matrix.shape
    num_tokens, num_heads = x.shape[0], rows // spec.head_dim
    assert rows == num_heads * spec.head_dim
    assert x.is_contiguous()
    assert x.shape[1] == cols
    tile = tuning.product_tile(num_tokens)
    tiles = (num_heads, ceil_div(num_tokens, tile.tokens))
    num_parts = split_product(tiles, (cache.width, tile.tokens), cols, workspace, tuning)
    rotation, rotation_factor = cache.rotation or (None, 1.0)
    launch(
        project_heads_kernel, (*tiles, num_parts), tile.launch,
        x, norm.weight, projection.matrix.weights, projection.bias, query_norm, key_norm, step.positions, step.slots,
        rope.turns, rotation, cache.keys.layer(layer), cache.values.layer(layer), query_out,
        workspace.partials, workspace.counters,
        projection.first_head, spec.num_heads, spec.num_kv_heads, num_tokens, cols, cache.layout.page_size,
        projection.matrix.factor, norm.eps, rope.magnitude, rotation_factor,
        ROTARY=rope.rotary_dim, IS_INTERLEAVED=rope.interleaved, TOKENS=tile.tokens, COLUMNS=tuning.columns,
        STRETCH=tuning.stretch, IS_SPLIT=num_parts > 1, **cache.constants(),
        **layout_constants(projection.matrix.layout),
    )  # fmt: skip
