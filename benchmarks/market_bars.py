"""Daily bars of GOOG, as entries of a stream, and as the tokens a session makes of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerscale_core.plugins import PluginRegistry
from layerscale_server.bench.stream_session import Feed

PREFIX = "Daily bars of a stock, the oldest first.\n"
QUESTION = "Next: close "

_ONE_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        token_ids: of its line, with the line's end.
    """

    entry: Mapping[str, float]
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Market:
    """All bars, the oldest first, and what stands before and after them."""

    bars: Sequence[Bar]
    prefix_ids: tuple[int, ...]
    question_ids: tuple[int, ...]

    @property
    def feed(self) -> Feed:
        """The bars as a session gets them."""
        return Feed("ohlcv", PREFIX, QUESTION, [bar.entry for bar in self.bars])

    def prompt(self, first: int, last: int) -> list[int]:
        """Prefix, the bars from ``first`` up to ``last`` and the question, as a session holds them."""
        lines = (token_id for bar in self.bars[first:last] for token_id in bar.token_ids)
        return [*self.prefix_ids, *lines, *self.question_ids]


def read_market(bars_path: Path, model_path: Path) -> Market:
    """Read a CSV file with a line of names, then date, open, high, low, close and volume.

    Volumes are in millions of shares, with one decimal, so that 190 bars leave room for questions in 8,192 tokens.
    """
    registry = PluginRegistry.discover()
    model = registry.open_model(model_path)
    tokenizer = model.make_tokenizer()
    model.close()
    stream_type = registry.stream_types()["ohlcv"]

    def read(row: Mapping[str, str]) -> Bar:
        prices = {name[0].lower(): float(row[name]) for name in ("Open", "High", "Low", "Close")}
        entry = prices | {"v": round(float(row["Volume"]) / _ONE_MILLION, 1)}
        line = stream_type.render(stream_type.validate(entry)) + "\n"
        return Bar(entry, tuple(tokenizer.encode(line, add_special=False)))

    with bars_path.open(newline="") as lines:
        bars = [read(row) for row in csv.DictReader(lines)]
    return Market(
        bars,
        prefix_ids=tuple(tokenizer.encode(PREFIX)),
        question_ids=tuple(tokenizer.encode(QUESTION, add_special=False)),
    )
