"""Embedding, norms, rotation and gating by themselves, against torch and the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from layerscale_core.conformance.executors import reference_kernels
from layerscale_core.conformance.random_model import LAYOUTS
from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.gpu.elementwise import embed, gated_activation, rms_norm, rope_heads
from layerscale_core.gpu.kernels.scalars import order_free_sum
from layerscale_core.gpu.matrix import pack, unpack
from layerscale_core.gpu.rope import device_rope
from layerscale_core.models import Activation, RopeSpec
from layerscale_core.specs import KVLayout
from tests.support.gpu_layers import tensor


@pytest.mark.parametrize(
    "layout", ["bf16", "4-bit, groups of 32, mins", "6-bit, groups of 16", "codebook, groups of 32"]
)
def test_embeds_rows_of_any_layout(layout: str) -> None:
    table = pack(LAYOUTS[layout].random(np.random.default_rng(0), (11, 288), 1.0), "cpu", torch.float32)
    token_ids = torch.arange(17, dtype=torch.int32) * 7 % 11
    out = embed(token_ids, table, torch.empty(17, 288), scale=3.0)
    np.testing.assert_allclose(out, 3 * unpack(table)[token_ids], rtol=1e-6)


def test_norms_wanted_rows_onto_a_residual() -> None:
    x, weight, residual = torch.randn(5, 45), torch.rand(45), torch.randn(2, 45)
    rows = torch.tensor([4, 1], dtype=torch.int32)
    expected = residual + torch.nn.functional.rms_norm(x[rows], (45,), weight, 1e-5)
    actual = rms_norm(x, weight, 1e-5, residual, rows=rows, residual=residual)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_norms_each_head_by_itself() -> None:
    x, weight = torch.randn(2, 3, 20), torch.rand(20)
    expected = torch.nn.functional.rms_norm(x, (20,), weight, 1e-5)
    actual = rms_norm(x.reshape(2, 60), weight, 1e-5, torch.empty(2, 60))
    np.testing.assert_allclose(actual.reshape(2, 3, 20), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rotary_dim", "interleaved"), [(20, False), (20, True), (6, False), (6, True), (0, False)])
def test_rotates_to_far_positions(rotary_dim: int, interleaved: bool) -> None:
    rope = RopeSpec(tuple(10_000.0 ** (-2 * pair / rotary_dim) for pair in range(rotary_dim // 2)), 1.2, interleaved)
    book = PageBook(KVLayout(2, 16, 1, 1, 20))
    sequence = book.sequence()
    sequence.next_position = 120_000
    batch = book.batch([Span(sequence, [0] * 17)])
    x = torch.randn(17, 60)
    kernels = reference_kernels()
    expected = kernels.rope(x.numpy(), kernels.begin_step(batch), 3, 20, rope)
    actual = rope_heads(x, torch.tensor(batch.positions), 20, device_rope(rope, "cpu"), x)
    np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.parametrize("activation", Activation)
def test_gates(activation: Activation) -> None:
    gate, up = torch.linspace(-90, 90, 1111), torch.randn(1111)
    expected = reference_kernels().gated_activation(gate.numpy(), up.numpy(), activation)
    with np.errstate(over="ignore"):
        actual = gated_activation(gate, up, activation, torch.empty(1111))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@triton.jit
def sum_kernel(x_ptr, out_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    columns = tl.arange(0, COLUMNS)
    x = tl.load(x_ptr + tl.arange(0, ROWS)[:, None] * COLUMNS + columns[None, :])
    tl.store(out_ptr + columns, order_free_sum(x, tl.max(x, axis=0)))


@pytest.mark.parametrize("num_rows", [64, 256])
def test_a_sum_of_squares_is_the_same_in_every_order(num_rows: int) -> None:
    random = np.random.default_rng(0)
    squares = np.square(random.standard_normal((num_rows, 16)) * np.logspace(-9, 9, 16)).astype(np.float32)
    squares[:, 3] = 0
    sums = []
    for rows in (np.arange(num_rows), *(random.permutation(num_rows) for _ in range(5))):
        out = torch.empty(16)
        sum_kernel[(1,)](tensor(squares[rows]), out, num_rows, 16)
        sums.append(out.numpy())
    np.testing.assert_allclose(sums[0], squares.sum(axis=0, dtype=np.float64), rtol=1e-6)
    for again in sums[1:]:
        np.testing.assert_array_equal(again, sums[0])
