"""Floats to codes: how near they stay, and what becomes of weights that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerscale_core.models import QuantizedMatrix
from layerscale_core.models.quantize import to_signed, to_unsigned

Floats = NDArray[np.float32]


def random_values(seed: int, scale: float = 0.02, shape: tuple[int, int] = (5, 96)) -> Floats:
    return np.random.default_rng(seed).normal(0.3 * scale, scale, shape).astype(np.float32)


def squared_error(matrix: QuantizedMatrix, values: Floats) -> float:
    return float(((matrix.dequantize() - values) ** 2).sum())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([6, 8]), exponent=st.integers(-12, 12))
def test_signed_codes_are_half_a_step_away_at_most(seed: int, bits: int, exponent: int) -> None:
    values = random_values(seed, scale=2.0**exponent)
    matrix = to_signed(values, bits)
    assert (matrix.bits, matrix.zero, matrix.mins) == (bits, 2 ** (bits - 1), None)
    assert matrix.codes.max() < 2**bits
    np.testing.assert_array_equal(matrix.scales, matrix.scales.astype(np.float16))
    # A scale rounded down, or held with fewer bits where float16 is subnormal, cuts the largest weight a little.
    bound = np.repeat(matrix.scales * 0.5, 32, axis=1) + np.abs(values) * 2.0**-11 + (2**bits) * 2.0**-25
    assert (np.abs(matrix.dequantize() - values) <= bound).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-10, 10))
def test_four_bits_are_nearer_than_even_steps_from_smallest_to_largest(seed: int, exponent: int) -> None:
    values = random_values(seed, scale=2.0**exponent)
    matrix = to_unsigned(values)
    assert (matrix.bits, matrix.zero, matrix.codes.max()) == (4, 0, 15)
    groups = values.reshape(5, 3, 32)
    low, high = groups.min(axis=-1, keepdims=True), groups.max(axis=-1, keepdims=True)
    even = np.rint((groups - low) / (high - low) * 15) / 15 * (high - low) + low
    assert squared_error(matrix, values) < ((even - groups) ** 2).sum()


@pytest.mark.parametrize("value", [0.0, 0.75, -3.0])
def test_equal_weights_stay_what_they_are(value: float) -> None:
    values = np.full((2, 32), value, np.float32)
    for matrix in (to_signed(values, 8), to_signed(values, 6), to_unsigned(values)):
        np.testing.assert_allclose(matrix.dequantize(), values, rtol=5e-4)


def test_codes_that_a_matrix_has_already_are_found_again() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (4, 64), dtype=np.uint8)
    codes[:, ::32], codes[:, 1::32] = 0, 15
    scales, mins = (rng.choice([0.25, 0.5, 1.0], (4, 2)).astype(np.float32) for _ in range(2))
    found = to_unsigned(QuantizedMatrix(codes, scales, mins, 0, 4, 32).dequantize())
    np.testing.assert_array_equal(found.codes, codes)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number_stays_none(broken: float) -> None:
    values = random_values(0, shape=(2, 64))
    values[1, 40] = broken
    for matrix in (to_signed(values, 8), to_unsigned(values)):
        with np.errstate(invalid="ignore"):
            result = matrix.dequantize()
        assert not np.isfinite(result[1, 32:]).any()
        assert np.isfinite(result[0]).all()
        assert np.isfinite(result[1, :32]).all()
