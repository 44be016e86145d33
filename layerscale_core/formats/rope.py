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


def yarn_magnitude(factor: float, slope: float = 1.0) -> float:
    """The factor on cosine and sine that keeps attention as sharp over the longer context. Source: as above, 3.4."""
    return 0.1 * slope * math.log(factor) + 1 if factor > 1 else 1.0


def llama3_frequencies(
    frequencies: Frequencies,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_context_len: int,
) -> Frequencies:
    """Divide by ``factor`` the frequencies whose wave is long beside the original context, as Llama 3.1 does.

    Pairs with more than ``high_freq_factor`` waves in the original context keep their frequency, those with fewer than
    ``low_freq_factor`` are divided, and a ramp joins the two. Source: arXiv:2407.21783, and Meta's code for it.
    """
    waves = original_context_len * frequencies / (2 * math.pi)
    kept = np.clip((waves - low_freq_factor) / max(1e-9, high_freq_factor - low_freq_factor), 0, 1)
    return frequencies * kept + frequencies / factor * (1 - kept)


def longrope_magnitude(factor: float, original_context_len: int) -> float:
    """The factor on cosine and sine of a context stretched so many times. Source: arXiv:2402.13753, section 3."""
    return math.sqrt(1 + math.log(factor) / math.log(max(2, original_context_len))) if factor > 1 else 1.0
