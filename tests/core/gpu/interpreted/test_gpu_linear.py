"""Matrix products, against float64 on the unpacked weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from layerscale_core.conformance.random_model import LAYOUTS
from layerscale_core.gpu.linear import Norm, gate_up, linear
from layerscale_core.gpu.matrix import DeviceMatrix, pack, unpack
from layerscale_core.models import Activation
from tests.support.gpu_layers import NO_ROOM, SMALL, make_workspace

ROWS, COLS = 37, 160
"""No multiple of a tile's rows, and no multiple of a stretch."""

TOLERANCES = {torch.float32: 3e-6, torch.float16: 3e-3}
"""Of the largest product: rounding of sums, and of operands to float16 of which a sum has hundreds."""

EPS = 1e-5


def random_matrix(layout: str, dtype: torch.dtype = torch.float32, cols: int = COLS) -> DeviceMatrix:
    return pack(LAYOUTS[layout].random(np.random.default_rng(7), (ROWS, cols), 0.1), "cpu", dtype)


def random_tensor(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def normed(x: Tensor, weight: Tensor) -> Tensor:
    return torch.nn.functional.rms_norm(x.double(), (x.shape[1],), weight.double(), EPS)


def is_close(actual: Tensor, truth: Tensor, dtype: torch.dtype) -> bool:
    return float((actual - truth).abs().max() / truth.abs().max()) <= TOLERANCES[dtype]


@pytest.mark.parametrize(("num_tokens", "dtype"), [(3, torch.float32), (1, torch.float16)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_linear_on_every_weight_layout(layout: str, num_tokens: int, dtype: torch.dtype) -> None:
    matrix, x = random_matrix(layout, dtype), random_tensor(num_tokens, COLS)
    out = linear(x, matrix, torch.empty(num_tokens, ROWS), make_workspace(), SMALL)
    assert is_close(out, x.double() @ unpack(matrix).double().T, dtype)


@pytest.mark.parametrize("num_tokens", [1, 17, 33])
def test_everything_around_a_product_is_fused_and_splitting_changes_no_bit(num_tokens: int) -> None:
    matrix, x, residual = (
        random_matrix("4-bit, groups of 32"),
        random_tensor(num_tokens, COLS),
        random_tensor(num_tokens, ROWS),
    )
    weight, bias = random_tensor(COLS), random_tensor(ROWS)
    workspace = make_workspace()
    split, whole = (
        linear(
            x,
            matrix,
            residual.clone(),
            scratch,
            SMALL,
            norm=Norm(weight, EPS),
            bias=bias,
            softcap=2.0,
            residual=residual,
        )
        for scratch in (workspace, NO_ROOM)
    )
    products = normed(x, weight) @ unpack(matrix).double().T + bias
    assert is_close(split, residual + 2 * torch.tanh(products / 2), torch.float32)
    assert torch.equal(split, whole)
    assert not workspace.counters.any()


def test_the_residual_may_be_where_the_sum_goes() -> None:
    matrix, x, residual = random_matrix("f32"), random_tensor(2, COLS), random_tensor(2, ROWS)
    truth = residual + x @ unpack(matrix).T
    assert is_close(linear(x, matrix, residual, make_workspace(), SMALL, residual=residual), truth, torch.float32)


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    matrix, x = random_matrix("8-bit, groups of 32"), random_tensor(9, COLS)
    together, others = (
        linear(tokens, matrix, torch.empty(9, ROWS), make_workspace(), SMALL) for tokens in (x, x.flip(0))
    )
    assert torch.equal(together, others.flip(0))


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("layout", ["f16", "4-bit, groups of 16, mins", "codebook, groups of 32"])
def test_gate_and_up_are_one_kernel(layout: str, activation: Activation) -> None:
    matrix, x, weight = random_matrix(layout), random_tensor(17, COLS), random_tensor(COLS)
    out = gate_up(x, matrix, matrix, activation, torch.empty(17, ROWS), tuning=SMALL, norm=Norm(weight, EPS))
    y = normed(x, weight) @ unpack(matrix).double().T
    gated = (
        torch.nn.functional.silu(y)
        if activation is Activation.SILU
        else torch.nn.functional.gelu(y, approximate="tanh")
    )
    assert is_close(out, gated * y, torch.float32)


def test_widths_that_no_tile_divides() -> None:
    matrix, x, weight = random_matrix("f32", cols=45), random_tensor(1, 45), random_tensor(45)
    out = linear(x, matrix, torch.empty(1, ROWS), make_workspace(), SMALL, norm=Norm(weight, EPS))
    assert is_close(out, normed(x, weight) @ unpack(matrix).double().T, torch.float32)
