"""Samples in a few numbers: medians, percentiles, and what meets its objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, slots=True)
class Percentiles:
    """P50, P90 and P99, interpolated linearly between the two nearest samples."""

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        """Summarise; at least one sample."""
        return cls(*np.percentile(samples, [50, 90, 99]).tolist())


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing."""

    median: float
    p20: float
    p80: float
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        """Summarise; at least one sample."""
        p20, median, p80 = np.percentile(samples, [20, 50, 80]).tolist()
        return cls(median, p20, p80, tuple(samples))

    def __str__(self) -> str:
        return f"{self.median:8.1f}  ({self.p20:.1f} to {self.p80:.1f})"


@dataclass(frozen=True, slots=True)
class Objectives:
    """What a request must keep to count (service level objectives), in seconds; None = no objective."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def are_met(self, ttft_s: float, tpot_s: float | None, e2e_s: float) -> bool:
        """Whether a request keeps them all; one of a single token has no TPOT, and breaks none."""
        pairs = ((self.ttft_s, ttft_s), (self.tpot_s, tpot_s), (self.e2e_s, e2e_s))
        return all(limit is None or value is None or value <= limit for limit, value in pairs)
