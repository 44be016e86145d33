"""Daily bars of a stock, read from the file that ``fetch.py`` brings."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bar:
    """What happened on one day.

    Attributes:
        date: as the file spells it, ISO 8601.
    """

    date: str
    open: float
    high: float
    low: float
    close: float
    volume: float

    def entry(self) -> dict[str, float]:
        """As an entry of an ``ohlcv`` stream. Without the date: nobody asks for it, and it is a fifth of the tokens."""
        return {"o": self.open, "h": self.high, "l": self.low, "c": self.close, "v": self.volume}


def read_bars(path: Path) -> Sequence[Bar]:
    """All bars of the file, the oldest first."""
    with path.open(newline="") as lines:
        rows = csv.reader(lines)
        next(rows)  # names of the columns: nothing, Open, High, Low, Close, Volume
        return [Bar(date, *map(float, values)) for date, *values in rows]
