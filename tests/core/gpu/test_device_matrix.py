"""Weight matrices as devices hold them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from layerscale_core.conformance.random_model import LAYOUTS
from layerscale_core.gpu.matrix import device_matrix_bytes, pack, stacked, unpack
from layerscale_core.models import DenseMatrix, Matrix, QuantizedMatrix


def random_matrix(layout: str, rows: int = 6, deviation: float = 0.1) -> Matrix:
    return LAYOUTS[layout].random(np.random.default_rng(rows), (rows, 96), deviation)


@pytest.mark.parametrize("deviation", [1e-9, 0.1, 1e9])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_unpacked_weights_are_those_that_were_packed(layout: str, deviation: float) -> None:
    matrix = random_matrix(layout, deviation=deviation if "groups" in layout else 0.1)
    weights = matrix.dequantize()
    # Scales and minima are rounded to float16; a minimum and the codes on it are larger than the weights.
    tolerance = 0 if isinstance(matrix, DenseMatrix) else 2.0**-9 * np.abs(weights).max()
    np.testing.assert_allclose(unpack(pack(matrix, "cpu", torch.float32)), weights, rtol=0, atol=tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_are_known_from_an_empty_slice(layout: str) -> None:
    matrix = random_matrix(layout)
    for dtype in (torch.float16, torch.float32):
        assert (
            device_matrix_bytes(random_matrix(layout, rows=0), *matrix.shape, dtype)
            == pack(matrix, "cpu", dtype).num_bytes
        )


def test_four_bits_and_a_float16_scale_a_group_are_four_and_a_half_bits_a_weight() -> None:
    assert (
        device_matrix_bytes(random_matrix("4-bit, groups of 32"), 1024, 4096, torch.bfloat16) == 1024 * 4096 * 4.5 / 8
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_matrices_of_one_layout_are_stacked(layout: str) -> None:
    parts = [random_matrix(layout, rows) for rows in (3, 5)]
    whole = stacked(parts)
    assert whole is not None
    np.testing.assert_array_equal(whole.dequantize(), np.concatenate([part.dequantize() for part in parts]))


def test_matrices_of_different_layouts_are_not() -> None:
    others = ("f16", "6-bit, groups of 16", "codebook, groups of 32")
    assert all(stacked([random_matrix("4-bit, groups of 32"), random_matrix(other)]) is None for other in others)
    assert stacked([random_matrix("f16"), random_matrix("4-bit, groups of 32")]) is None
    assert stacked([random_matrix("f16"), random_matrix("bf16")]) is None


def test_a_matrix_of_zeros_stays_zero() -> None:
    zeros = QuantizedMatrix(np.zeros((2, 32), np.uint8), np.zeros((2, 1), np.float32), None, 8, 4, 32)
    assert not unpack(pack(zeros, "cpu", torch.float16)).any()
