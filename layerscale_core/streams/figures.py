"""Arithmetic of statistics, always finite: JSON has no infinity."""

from __future__ import annotations

import math
from collections.abc import Sequence


def finite(value: float) -> float:
    """The value, or 0.0 where arithmetic on extreme entries overflowed."""
    return value if math.isfinite(value) else 0.0


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return finite(sum(values) / len(values))
