"""A file of daily bars like the one that the demo fetches, of a stock that there never was."""

from __future__ import annotations

import random
from datetime import date, timedelta
from pathlib import Path


def write_bars(path: Path, num_bars: int) -> Path:
    rng = random.Random(0)
    lines, close = [",Open,High,Low,Close,Volume"], 500.0
    for number in range(num_bars):
        opening, close = close, round(close * rng.uniform(0.98, 1.02), 2)
        high, low = round(max(opening, close) + 1, 2), round(min(opening, close) - 1, 2)
        day = date(2020, 1, 1) + timedelta(days=number)
        lines.append(f"{day},{opening},{high},{low},{close},{rng.randint(10**6, 10**7)}")
    path.write_text("\n".join(lines) + "\n")
    return path
