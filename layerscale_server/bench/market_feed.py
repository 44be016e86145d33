"""Bars of a market that there never was, to feed sessions with."""

from __future__ import annotations

import random

from layerscale_server.bench.stream_session import Feed


def market_feed(num_bars: int, seed: int) -> Feed:
    """A random walk of prices with two decimals; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 (bars, repeatable)
    bars, close = [], 500.0
    for _ in range(num_bars):
        opening, close = close, round(max(1.0, close * rng.gauss(1, 0.01)), 2)
        high, low = max(opening, close) + rng.random(), min(opening, close) - rng.random()
        bars.append({"o": opening, "h": round(high, 2), "l": round(low, 2), "c": close, "v": rng.randint(1, 999)})
    return Feed("ohlcv", "Bars of a market, the oldest first.\n", "Next: close ", bars)
