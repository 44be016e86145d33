"""What stands outside the layers' products: embedding, norms, rotation and gating by themselves.

Sums, scales and caps by themselves are torch's own operations; within a layer they are part of a product.
"""

from __future__ import annotations

from torch import Tensor

from layerscale_core.gpu.kernels.elementwise import (
    embed_kernel,
    gated_activation_kernel,
    rms_norm_kernel,
    rope_heads_kernel,
)
from layerscale_core.gpu.launch import ceil_div, launch, next_power_of_two
from layerscale_core.gpu.matrix import DeviceMatrix
from layerscale_core.gpu.rope import DeviceRope
from layerscale_core.gpu.tuning import Launch
from layerscale_core.models import Activation

_TOKENS = 16
_COLUMNS = 256
_ELEMENTS = 1024
_LAUNCH = Launch(num_warps=4, num_stages=1)


def embed(token_ids: Tensor, table: DeviceMatrix, out: Tensor, *, scale: float = 1.0) -> Tensor:
    """``scale * table[token_ids]``, whatever the table's layout: [T] to [T, hidden]; returns ``out``."""
    num_tokens, cols = token_ids.numel(), table.shape[1]
    layout = table.layout
    launch(
        embed_kernel, (ceil_div(num_tokens, _TOKENS), ceil_div(cols, _COLUMNS)), _LAUNCH,
        token_ids, table.weights, out, num_tokens, cols, table.factor * scale, TOKENS=_TOKENS, COLUMNS=_COLUMNS,
        BITS=layout.bits, GROUP=layout.group_size, ZERO=layout.zero,
    )  # fmt: skip
    return out


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, out: Tensor, *, rows: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """``residual + x / sqrt(mean(x²) + eps) * weight``; returns ``out``, which may be x or the residual.

    Args:
        x: [.., n * size of the weight]: each part of that size, such as a head, is normalised by itself.
        rows: int32 or int64, the rows of x to take, in the order of the output's; they are as wide as the weight.
        residual: of the output's shape.
    """
    width = weight.numel()
    launch(
        rms_norm_kernel, (out.numel() // width,), Launch(num_warps=8 if width > 2048 else 4, num_stages=1),
        x, weight, rows, residual, out, width, eps, WIDTH=next_power_of_two(width),
    )  # fmt: skip
    return out


def rope_heads(x: Tensor, positions: Tensor, head_dim: int, rope: DeviceRope, out: Tensor) -> Tensor:
    """Rotate heads [T, num_heads * head_dim] to positions [T]; returns ``out``, which may be x."""
    num_tokens, num_heads = x.shape[0], x.shape[1] // head_dim
    launch(
        rope_heads_kernel, (ceil_div(num_tokens, _TOKENS), num_heads), _LAUNCH,
        x, positions, rope.turns, out, num_tokens, num_heads, rope.magnitude, HEAD_DIM=head_dim,
        WIDTH=next_power_of_two(head_dim), ROTARY=rope.rotary_dim, IS_INTERLEAVED=rope.interleaved, TOKENS=_TOKENS,
    )  # fmt: skip
    return out


def gated_activation(gate: Tensor, up: Tensor, activation: Activation, out: Tensor) -> Tensor:
    """``activation(gate) * up``, elementwise; returns ``out``, which may be either."""
    num_elements = out.numel()
    launch(
        gated_activation_kernel, (ceil_div(num_elements, _ELEMENTS),), _LAUNCH,
        gate, up, out, num_elements, IS_GELU=activation is Activation.GELU_TANH, SIZE=_ELEMENTS,
    )  # fmt: skip
    return out
