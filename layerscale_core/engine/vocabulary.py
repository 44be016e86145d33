"""Selections over a row of the vocabulary's size, none of which sorts the whole row unless its values force it to.

Each function is exact: candidates are first narrowed to a superset that is upward closed (with a value it has every
larger one), and only those are sorted. Equal values rank by token id, the lower first.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_GROUP_SIZE = 64
_BLOCK_SIZE = 256
_FIRST_FLOOR, _FLOOR_STEP, _LAST_FLOOR = 2.0**-3, 2.0**-3, 2.0**-24


def largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Token ids of the ``count`` largest values, largest first."""
    if count >= values.size:
        return _descending(values, np.arange(values.size))
    return _descending(values, np.flatnonzero(values >= _floor_of_largest(values, count)))[:count]


def nucleus(weights: NDArray[np.float32], top_p: float) -> NDArray[np.int64]:
    """The fewest token ids, heaviest first, that hold at least ``top_p`` of all weight.

    Args:
        weights: at least 0, the heaviest 1.
    """
    needed = top_p * float(weights.sum(dtype=np.float64))
    floor = _FIRST_FLOOR
    candidates = np.flatnonzero(weights >= floor)
    while float(weights[candidates].sum(dtype=np.float64)) <= needed and floor > 0:
        floor = floor * _FLOOR_STEP if floor > _LAST_FLOOR else 0.0
        candidates = np.flatnonzero(weights >= floor)
    heaviest_first = _descending(weights, candidates)
    running_sum = np.cumsum(weights[heaviest_first], dtype=np.float64)
    return heaviest_first[: int(np.searchsorted(running_sum, needed)) + 1]


def draw(weights: NDArray[np.float32], point: float) -> int:
    """Invert the cumulative distribution: an index with the probability that its weight has in the sum.

    Sums blocks first, then looks inside one: a running sum over a whole vocabulary costs ten times as much.

    Args:
        weights: [n], at least 0, not all 0.
        point: uniform in [0, 1).
    """
    block_starts = np.arange(0, weights.size, _BLOCK_SIZE)
    block_sums = np.add.reduceat(weights, block_starts, dtype=np.float64)
    block, rest = _locate(block_sums, point * float(block_sums.sum()))
    start = block * _BLOCK_SIZE
    index, _ = _locate(weights[start : start + _BLOCK_SIZE], rest)
    return start + index


def log_sum_exp(values: NDArray[np.float32]) -> float:
    """``log(sum(exp(values)))``: what turns logits into log-probabilities."""
    peak = values.max()
    weights = values - peak
    np.exp(weights, out=weights)
    return float(peak) + math.log(weights.sum(dtype=np.float64))


def _floor_of_largest(values: NDArray[np.float32], count: int) -> np.float32:
    """A value that at least ``count`` values reach.

    Cut into groups, ``count`` group maxima reach the ``count``-th largest maximum: close to the true floor, found
    without touching most of the row twice. With fewer groups than that, the row itself is partitioned.
    """
    num_groups = values.size // _GROUP_SIZE
    if num_groups >= count:
        values = values[: num_groups * _GROUP_SIZE].reshape(_GROUP_SIZE, num_groups).max(axis=0)
    floor: np.float32 = np.partition(values, values.size - count)[values.size - count]
    return floor


def _descending(values: NDArray[np.float32], token_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending ``token_ids`` in descending order of their values."""
    order: NDArray[np.int64] = np.argsort(-values[token_ids], kind="stable")
    return token_ids[order]


def _locate(weights: NDArray[np.floating], point: float) -> tuple[int, float]:
    """The index at which the running sum passes ``point``, and how far into that weight the point lies.

    Rounding may put the point at or past the end; the last index that has weight is meant then.
    """
    running_sum = np.cumsum(weights, dtype=np.float64)
    last = int(np.searchsorted(running_sum, running_sum[-1]))
    index = min(int(np.searchsorted(running_sum, point, side="right")), last)
    return index, point - (float(running_sum[index - 1]) if index else 0.0)
