"""From floats to the internal layouts: what ``--quantization`` does to a matrix.

Scales and minima are rounded to float16 first, which is what backends hold, and codes are chosen for the rounded ones.
A weight that is no number makes its group's scale none, so that it is found in the logits as it would be without.
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

from layerscale_core.models.matrix import QuantizedMatrix

Floats = NDArray[np.float32]

GROUP_SIZE = 32
"""Columns that share a scale."""

_INT4_MAX = 15
_REFINEMENTS = 2
"""Least-squares steps of the 4-bit fit: the second still takes 2 % of the error away, a third 1 %."""


class Quantization(enum.StrEnum):
    """What becomes of weights that a file holds in floats."""

    NONE = "none"
    """They stay as they are."""
    INT8 = "int8"
    """8.5 bits a weight."""
    INT4 = "int4"
    """5 bits a weight, more for those that need it."""


@np.errstate(all="ignore")
def to_signed(values: Floats, bits: int) -> QuantizedMatrix:
    """Signed codes with a scale, by which the largest weight of a group is the largest code.

    Args:
        values: [rows, cols]; 32 divides cols.
        bits: 6 or 8.
    """
    groups, zero = _groups(values), 2 ** (bits - 1)
    scales = _half(np.abs(groups).max(axis=-1) / (zero - 1))
    codes = np.rint(groups * _inverse(scales)) + zero
    return QuantizedMatrix(_bytes(codes, 2 * zero - 1, values.shape), scales, None, zero, bits, GROUP_SIZE)


@np.errstate(all="ignore")
def to_unsigned(values: Floats) -> QuantizedMatrix:
    """4-bit codes with a scale and a minimum, of the least squared error that alternating steps find.

    Args:
        values: [rows, cols]; 32 divides cols.
    """
    groups = _groups(values)
    mins = groups.min(axis=-1)
    scales, mins = _half((groups.max(axis=-1) - mins) / _INT4_MAX), _half(mins)
    codes = _int4_codes(groups, scales, mins)
    for _ in range(_REFINEMENTS):
        scales, mins = _least_squares(groups, codes)
        codes = _int4_codes(groups, scales, mins)
    return QuantizedMatrix(_bytes(codes, _INT4_MAX, values.shape), scales, mins, 0, 4, GROUP_SIZE)


def _groups(values: Floats) -> Floats:
    rows, cols = values.shape
    return values.reshape(rows, cols // GROUP_SIZE, GROUP_SIZE)


def _int4_codes(groups: Floats, scales: Floats, mins: Floats) -> Floats:
    codes = groups - mins[..., None]
    codes *= _inverse(scales)
    return np.clip(np.rint(codes, out=codes), 0, _INT4_MAX, out=codes)


def _least_squares(groups: Floats, codes: Floats) -> tuple[Floats, Floats]:
    """The scale and minimum of each group that come nearest to it with these codes."""
    code_means, means = codes.mean(axis=-1), groups.mean(axis=-1)
    covariances = np.einsum("rgi,rgi->rg", codes, groups) / GROUP_SIZE - code_means * means
    variances = np.einsum("rgi,rgi->rg", codes, codes) / GROUP_SIZE - code_means * code_means
    scales = np.divide(covariances, variances, out=np.zeros_like(means), where=variances != 0)
    return _half(scales), _half(means - scales * code_means)


def _half(values: Floats) -> Floats:
    return values.astype(np.float16).astype(np.float32)


def _inverse(scales: Floats) -> Floats:
    """For multiplying [rows, groups, columns]; 0 where the scale is."""
    return np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)[..., None]


def _bytes(codes: Floats, maximum: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    np.nan_to_num(codes, copy=False, nan=0)
    return np.clip(codes, 0, maximum).astype(np.uint8).reshape(shape)
