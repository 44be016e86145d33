"""Matrices over the same inputs, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from layerscale_core.gpu.matrix import DeviceMatrix, Weights, stacked
from layerscale_core.models import Matrix


@dataclass(frozen=True, slots=True)
class MatrixStack:
    """Matrices on a device; those that follow each other in one layout are one, so that one product computes them.

    Attributes:
        runs: what lies in one, with the number of its first row in the whole stack.
        matrices: every matrix as it was before; views.
    """

    runs: tuple[tuple[DeviceMatrix, int], ...]
    matrices: tuple[DeviceMatrix, ...]

    @classmethod
    def of(cls, runs: Sequence[DeviceMatrix], row_counts: Sequence[int]) -> MatrixStack:
        """A stack of such runs, whose matrices have so many rows."""
        first_rows = [sum(run.shape[0] for run in runs[:index]) for index in range(len(runs))]
        matrices: list[DeviceMatrix] = []
        start = 0
        for rows in row_counts:
            index = max(index for index, first_row in enumerate(first_rows) if first_row <= start)
            matrices.append(_rows(runs[index], start - first_rows[index], rows))
            start += rows
        return cls(tuple(zip(runs, first_rows, strict=True)), tuple(matrices))


def joined(matrices: Sequence[Matrix]) -> list[Matrix]:
    """The matrices, with neighbours of one layout joined."""
    runs: list[Matrix] = []
    for matrix in matrices:
        both = stacked([runs[-1], matrix]) if runs else None
        if both is None:
            runs.append(matrix)
        else:
            runs[-1] = both
    return runs


def _rows(matrix: DeviceMatrix, start: int, num_rows: int) -> DeviceMatrix:
    codes, scales, mins, codebook = matrix.weights
    rows = slice(start, start + num_rows)
    weights = Weights(
        codes[rows], None if scales is None else scales[rows], None if mins is None else mins[rows], codebook
    )
    return replace(matrix, weights=weights, shape=(num_rows, matrix.shape[1]))
