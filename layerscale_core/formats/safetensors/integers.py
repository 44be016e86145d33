"""Integer codes of packed weights, and the internal layout that they map onto."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscale_core.formats.safetensors.packed import Module
from layerscale_core.models import QuantizedMatrix

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]

GROUP_SIZE = 32
"""Columns that share a scale in the internal layout; a larger group's scale is repeated."""


def unpack(words: NDArray[Any], bits: int) -> Codes:
    """The codes of 32-bit words, the lowest bits first: uint8 [..., codes in a word], fresh."""
    packed = np.array(words, order="C").view(np.uint8).reshape(*words.shape, 4)
    if bits == 8:
        return packed
    return np.stack([packed & 0xF, packed >> 4], axis=-1).reshape(*words.shape, 8)


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows of codes with their scales, as a file has them.

    Attributes:
        codes: [rows, cols].
        scales: float32 [rows, groups].
        zeros: [rows, groups], the codes that stand for 0; None: half of all codes lie below it.
    """

    codes: Codes
    scales: Floats
    zeros: Codes | None = None


@dataclass(frozen=True, slots=True)
class IntegerWeight:
    """A ``PackedWeight`` of codes.

    Attributes:
        bits: 4 or 8.
        group_size: columns that share a scale in the file, a multiple of 32 or whole rows.
        has_zeros: groups have zero points of their own, which become minima.
        read: some rows of it.
    """

    parts: tuple[str, ...]
    shape: tuple[int, int]
    bits: int
    group_size: int
    has_zeros: bool
    read: Callable[[int, int], Groups]

    def rows(self, start: int, stop: int) -> QuantizedMatrix:
        """See ``PackedWeight``."""
        cols = self.shape[1]
        if start == stop:
            none = np.empty((0, cols // GROUP_SIZE), np.float32)
            return self._matrix(np.empty((0, cols), np.uint8), none, none if self.has_zeros else None)
        groups = self.read(start, stop)
        mins = None if groups.zeros is None else self._repeated(-groups.scales * groups.zeros)
        return self._matrix(np.ascontiguousarray(groups.codes), self._repeated(groups.scales), mins)

    def _matrix(self, codes: Codes, scales: Floats, mins: Floats | None) -> QuantizedMatrix:
        zero = 0 if self.has_zeros else 2 ** (self.bits - 1)
        return QuantizedMatrix(codes, scales, mins, zero, self.bits, GROUP_SIZE)

    def _repeated(self, values: Floats) -> Floats:
        num_groups = self.shape[1] // GROUP_SIZE
        repeats = -(-self.group_size // GROUP_SIZE)
        return np.ascontiguousarray(np.repeat(values, repeats, axis=1)[:, :num_groups])


def check_layout(module: Module, cols: int, bits: int, group_size: int, *, has_zeros: bool) -> None:
    """Refuse what maps onto no internal layout.

    Raises:
        UnsupportedModelError: groups or rows that 32 does not divide, or 8-bit codes with zero points.
    """
    if cols % GROUP_SIZE or (group_size < cols and group_size % GROUP_SIZE):
        module.refuse(f"rows of {cols} columns in groups of {group_size}; packed weights come in groups of 32")
    if bits == 8 and has_zeros:
        module.refuse("8-bit codes with zero points cannot be read; symmetric ones can")
