"""Weights in memory: the few internal layouts that every format on disk is read into.

Kernels are written for these layouts and never for file formats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """Integer codes in groups along a row, each group with a scale and a zero point or a minimum.

    With ``value = codebook[code]`` if there is a codebook, else ``value = code``::

        weight = scale * (value - zero) + minimum

    Attributes:
        codes: uint8 [rows, cols], one code an element, each below ``2 ** bits``.
        scales: float32 [rows, cols / group_size].
        mins: float32 [rows, cols / group_size], or None: no minimum.
        zero: the value that stands for 0; 0 where there are minima.
        bits: 4, 6 or 8: what a backend stores per code.
        group_size: 16 or 32; divides cols.
        codebook: uint8 [16] for 4-bit codes that index a table (IQ4_NL), or None.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    mins: NDArray[np.float32] | None
    zero: int
    bits: int
    group_size: int
    codebook: NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.codes.shape[0], self.codes.shape[1]

    def dequantize(self) -> NDArray[np.float32]:
        """The weights as float32 [rows, cols]: the definition that every kernel is measured against."""
        rows, cols = self.shape
        values = self.codes if self.codebook is None else self.codebook[self.codes]
        grouped = values.reshape(rows, cols // self.group_size, self.group_size).astype(np.float32)
        if self.zero:
            grouped -= np.float32(self.zero)
        grouped *= self.scales[:, :, None]
        if self.mins is not None:
            grouped += self.mins[:, :, None]
        return grouped.reshape(rows, cols)


@dataclass(frozen=True, slots=True)
class DenseMatrix:
    """Unquantised weights [rows, cols]: float32, float16, or bfloat16 held as its uint16 bit pattern."""

    data: NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint16]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.data.shape[0], self.data.shape[1]

    def dequantize(self) -> NDArray[np.float32]:
        """The weights as float32 [rows, cols]."""
        if self.data.dtype == np.uint16:
            return (self.data.astype(np.uint32) << 16).view(np.float32)
        return self.data.astype(np.float32)


Matrix = QuantizedMatrix | DenseMatrix
