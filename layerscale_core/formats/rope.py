"""The rotation frequencies behind ``RopeSpec``: one function per way to stretch a context, for any file format."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Frequencies = NDArray[np.float64]


def rope_frequencies(rotary_dim: int, base: float) -> Frequencies:
    """Radians per position of each pair, [rotary_dim / 2]: ``base ** (-2i / rotary_dim)``. Source: arXiv:2104.09864."""
    frequencies: Frequencies = base ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)
    return frequencies


def yarn_frequencies(
    frequencies: Frequencies,
    *,
    base: float,
    factor: float,
    original_context_len: int,
    beta_fast: float,
    beta_slow: float,
) -> Frequencies:
    """Divide by ``factor`` the frequencies that turn too seldom in the original context to have been learned whole.

    Pairs with more than ``beta_fast`` turns keep their frequency, those with fewer than ``beta_slow`` are divided, and
    a ramp joins the two. Source: arXiv:2309.00071, section 3.2.
    """
    rotary_dim = 2 * len(frequencies)

    def pair_with_turns(turns: float) -> float:
        return rotary_dim * math.log(original_context_len / (turns * 2 * math.pi)) / (2 * math.log(base))

    first = max(0, math.floor(pair_with_turns(beta_fast)))
    last = min(rotary_dim - 1, math.ceil(pair_with_turns(beta_slow)))
    divided = np.clip((np.arange(len(frequencies)) - first) / max(0.001, last - first), 0, 1)
    return frequencies * (1 - divided) + frequencies / factor * divided


def yarn_magnitude(factor: float) -> float:
    """The factor on cosine and sine that keeps attention as sharp over the longer context. Source: as above, 3.4."""
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
