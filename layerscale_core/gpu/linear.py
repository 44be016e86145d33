"""Matrix products with what stands around them: ``linear`` and ``gate_up``."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from layerscale_core.gpu.kernels.linear import gate_up_kernel, linear_kernel
from layerscale_core.gpu.launch import COMPUTE_TYPES, ceil_div, launch
from layerscale_core.gpu.matrix import DeviceMatrix, MatrixLayout
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.gpu.workspace import Workspace
from layerscale_core.models import Activation


class Norm(NamedTuple):
    """An RMS norm of a product's input: its weight [cols] and what is added to the mean square.

    The input is multiplied by the weight before it is rounded to the compute dtype, and by the norm's other factor
    after the product: bfloat16 has the range for that, float16 only where activations are small.
    """

    weight: Tensor
    eps: float


def linear(
    x: Tensor,
    matrix: DeviceMatrix,
    out: Tensor,
    workspace: Workspace,
    tuning: Tuning,
    *,
    norm: Norm | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """``residual + softcap(norm(x) @ matrix.T + bias)``; returns ``out``.

    Args:
        x: [T, cols], any float dtype.
        out: [T, rows], any float dtype; may be the residual.
        bias: [rows].
        residual: [T, rows].
        softcap: a cap as ``AttentionSpec`` has it, for logits.
    """
    rows, cols = matrix.shape
    num_tokens = _check(x, matrix, out)
    tile = tuning.product_tile(num_tokens)
    tiles = (ceil_div(rows, tuning.rows), ceil_div(num_tokens, tile.tokens))
    num_parts = split_product(tiles, (tuning.rows, tile.tokens), cols, workspace, tuning)
    launch(
        linear_kernel, (*tiles, num_parts), tile.launch,
        x, norm and norm.weight, matrix.weights, bias, residual, out, workspace.partials, workspace.counters,
        num_tokens, rows, cols, matrix.factor, norm.eps if norm else 0.0, softcap or 0.0,
        HAS_SOFTCAP=softcap is not None, ROWS=tuning.rows, TOKENS=tile.tokens, COLUMNS=tuning.columns,
        STRETCH=tuning.stretch, IS_SPLIT=num_parts > 1, **layout_constants(matrix.layout),
    )  # fmt: skip
    return out


def gate_up(
    x: Tensor,
    gate: DeviceMatrix,
    up: DeviceMatrix,
    activation: Activation,
    out: Tensor,
    *,
    tuning: Tuning,
    norm: Norm | None = None,
) -> Tensor:
    """``activation(norm(x) @ gate.T) * (norm(x) @ up.T)``; returns ``out``.

    Args:
        x: [T, cols], any float dtype.
        gate, up: of one layout and shape.
        out: [T, rows], any float dtype.
    """
    assert gate.layout == up.layout
    assert gate.shape == up.shape
    rows, cols = gate.shape
    num_tokens = _check(x, gate, out)
    tile = tuning.product_tile(num_tokens)
    launch(
        gate_up_kernel, (ceil_div(rows, tuning.rows), ceil_div(num_tokens, tile.tokens)), tile.launch,
        x, norm and norm.weight, gate.weights, up.weights, out, num_tokens, rows, cols, gate.factor, up.factor,
        norm.eps if norm else 0.0, IS_GELU=activation is Activation.GELU_TANH, ROWS=tuning.rows, TOKENS=tile.tokens,
        COLUMNS=tuning.columns, **layout_constants(gate.layout),
    )  # fmt: skip
    return out


def layout_constants(layout: MatrixLayout) -> dict[str, object]:
    """What kernels are compiled for, of a matrix."""
    return {"BITS": layout.bits, "GROUP": layout.group_size, "ZERO": layout.zero, "DTYPE": COMPUTE_TYPES[layout.dtype]}


def split_product(
    tiles: tuple[int, int], tile_shape: tuple[int, int], cols: int, workspace: Workspace, tuning: Tuning
) -> int:
    """How many programs share a tile [rows, tokens]: one a stretch where that fills the device better, or one."""
    num_tiles, num_stretches = tiles[0] * tiles[1], ceil_div(cols, tuning.stretch)
    rows, tokens = tile_shape
    has_room = workspace.holds(num_tiles * num_stretches * (rows + 1) * tokens, num_tiles)
    return num_stretches if num_tiles < tuning.target_programs and has_room else 1


def _check(x: Tensor, matrix: DeviceMatrix, out: Tensor) -> int:
    rows, cols = matrix.shape
    num_tokens = x.shape[0]
    assert x.shape == (num_tokens, cols), x.shape
    assert out.shape == (num_tokens, rows), out.shape
    assert x.is_contiguous()
    assert out.is_contiguous()
    return num_tokens
