"""Weight matrices on a device, in the layouts that kernels read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscale_core.models import DenseMatrix, Matrix, QuantizedMatrix


class Weights(NamedTuple):
    """A matrix's tensors, as kernels take them.

    Attributes:
        codes: uint8 [rows, cols / 2], two 4-bit codes a byte, the first in the low half; uint8 [rows, cols], a code a
            byte, for 6 and 8 bits; or floats [rows, cols].
        scales, mins: float16 [rows, cols / group_size], in units of the matrix's factor; None where there are none.
        codebook: float32 [16], zero already subtracted; or None.
    """

    codes: Tensor
    scales: Tensor | None
    mins: Tensor | None
    codebook: Tensor | None


@dataclass(frozen=True, slots=True)
class MatrixLayout:
    """What kernels must know of a matrix when they are compiled; matrices of one layout can be stacked.

    Attributes:
        bits: 4, 8, or 16 for floats of any width.
        zero: what is subtracted from a code.
        has_mins, has_codebook: see ``Weights``.
        dtype: what products with it are computed in.
    """

    bits: int
    group_size: int
    zero: int
    has_mins: bool
    has_codebook: bool
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class DeviceMatrix:
    """``factor * (scale * (value - zero) + minimum)``, or floats, [rows, cols].

    Attributes:
        factor: a power of two that brings the largest scale between 1/2 and 1, so that float16 scales neither
            overflow nor lose bits to a small unit, and weights as kernels hold them stay small.
    """

    weights: Weights
    layout: MatrixLayout
    shape: tuple[int, int]
    factor: float

    @property
    def num_bytes(self) -> int:
        """Bytes on the device."""
        return sum(part.numel() * part.element_size() for part in self.weights if part is not None)


def matrix_layout(matrix: Matrix, dtype: torch.dtype) -> MatrixLayout:
    """The layout that a matrix gets; an empty slice of it is enough."""
    if isinstance(matrix, DenseMatrix):
        return MatrixLayout(16, 1, 0, False, False, dtype)
    has_codebook = matrix.codebook is not None
    bits = 4 if matrix.bits == 4 else 8
    zero = 0 if has_codebook else matrix.zero
    return MatrixLayout(bits, matrix.group_size, zero, matrix.mins is not None, has_codebook, dtype)


def device_matrix_bytes(matrix: Matrix, rows: int, cols: int, dtype: torch.dtype) -> int:
    """Bytes on the device of a matrix of a shape that is laid out as this one, which may be an empty slice."""
    layout = matrix_layout(matrix, dtype)
    if layout.bits == 16:
        return rows * cols * dtype.itemsize
    num_groups = rows * (cols // layout.group_size)
    groups = num_groups * 2 * (1 + layout.has_mins)
    return rows * cols * layout.bits // 8 + groups + 4 * 16 * layout.has_codebook


def pack(matrix: Matrix, device: torch.device | str, dtype: torch.dtype) -> DeviceMatrix:
    """Lay a matrix out on a device.

    Args:
        dtype: what products with it are computed in, and what floats are stored in.

    Raises:
        torch.OutOfMemoryError: the device cannot hold it.
    """
    layout = matrix_layout(matrix, dtype)
    if isinstance(matrix, DenseMatrix):
        return DeviceMatrix(Weights(_floats(matrix).to(device, dtype), None, None, None), layout, matrix.shape, 1.0)
    factor = math.ldexp(1.0, math.frexp(float(np.abs(matrix.scales).max(initial=0)))[1])
    codes = matrix.codes[:, 0::2] | matrix.codes[:, 1::2] << 4 if layout.bits == 4 else matrix.codes

    def halves(values: NDArray[np.float32] | None) -> Tensor | None:
        return None if values is None else torch.tensor((values / np.float32(factor)).astype(np.float16)).to(device)

    codebook = None
    if matrix.codebook is not None:
        codebook = torch.tensor(matrix.codebook.astype(np.float32) - np.float32(matrix.zero)).to(device)
    tensors = Weights(torch.tensor(codes).to(device), halves(matrix.scales), halves(matrix.mins), codebook)
    return DeviceMatrix(tensors, layout, matrix.shape, factor)


def unpack(matrix: DeviceMatrix) -> Tensor:
    """The weights as float32 [rows, cols]: what kernels are measured against."""
    codes, scales, mins, codebook = matrix.weights
    if scales is None:
        return codes.float()
    if matrix.layout.bits == 4:
        codes = torch.stack([codes & 15, codes >> 4], dim=-1)
    values = codes.float() - matrix.layout.zero if codebook is None else codebook[codes.int()]
    groups = values.reshape(*scales.shape, matrix.layout.group_size) * scales.float()[:, :, None]
    if mins is not None:
        groups += mins.float()[:, :, None]
    return groups.reshape(matrix.shape) * matrix.factor


def stacked(matrices: Sequence[Matrix]) -> Matrix | None:
    """The rows of matrices one below the other, for one product with all of them; None where layouts differ."""
    first = matrices[0]
    if isinstance(first, DenseMatrix):
        same = [matrix for matrix in matrices if isinstance(matrix, DenseMatrix)]
        is_same = len(same) == len(matrices) and all(matrix.data.dtype == first.data.dtype for matrix in same)
        return DenseMatrix(np.concatenate([matrix.data for matrix in same])) if is_same else None
    quantized = [matrix for matrix in matrices if isinstance(matrix, QuantizedMatrix)]
    if len(quantized) < len(matrices) or not all(_is_alike(matrix, first) for matrix in quantized):
        return None
    mins = [matrix.mins for matrix in quantized if matrix.mins is not None]
    return replace(
        first,
        codes=np.concatenate([matrix.codes for matrix in quantized]),
        scales=np.concatenate([matrix.scales for matrix in quantized]),
        mins=np.concatenate(mins) if mins else None,
    )


def _is_alike(matrix: QuantizedMatrix, other: QuantizedMatrix) -> bool:
    layouts = (matrix_layout(part, torch.float32) for part in (matrix, other))
    codebooks = (b"" if part.codebook is None else part.codebook.tobytes() for part in (matrix, other))
    return len(set(layouts)) == 1 and len(set(codebooks)) == 1 and matrix.zero == other.zero


def _floats(matrix: DenseMatrix) -> Tensor:
    data = torch.tensor(matrix.data)  # a copy: the file's memory is read-only
    return data.view(torch.bfloat16) if data.dtype == torch.uint16 else data
