"""Figures with their spread, as a table, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from layerscale_server.bench.statistics import Spread


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both engines.

    Attributes:
        higher_is_better: a rate; otherwise a time or a size.
        peer_setup: llama.cpp's settings in this row.
    """

    name: str
    unit: str
    higher_is_better: bool
    ours: Spread
    peer: Spread
    peer_setup: str

    @property
    def ratio(self) -> float:
        """How many times better our median is."""
        ours, peer = self.ours.median, self.peer.median
        return ours / peer if self.higher_is_better else peer / ours

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self) | {"ratio": self.ratio}


def print_table(rows: Sequence[Row]) -> None:
    """Both engines side by side: median (p20 to p80), and how many times better ours is."""
    print(f"{'':38}  {'LayerScale':28}  {'llama.cpp':28}  {'ratio':>7}  llama.cpp's set-up")
    for row in rows:
        name = f"{row.name}, {row.unit}"
        print(f"{name:38}  {row.ours!s:28}  {row.peer!s:28}  {row.ratio:6.2f}x  {row.peer_setup}")


def markdown(title: str, setting: dict[str, Any], rows: Sequence[Row]) -> str:
    """A page for people: how it was measured, and the figures."""
    return "\n".join([f"# {title}", "", *_setting_lines(setting), "", *_table_lines(rows), ""])


def _setting_lines(setting: dict[str, Any]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for name, value in setting.items():
        yield f"| {name} | {str(value).replace('|', '/')} |"


def _table_lines(rows: Sequence[Row]) -> Iterator[str]:
    yield "| | LayerScale | llama.cpp | ratio | llama.cpp's set-up |"
    yield "|---|---|---|---|---|"
    for row in rows:
        cells = (f"{row.name}, {row.unit}", str(row.ours), str(row.peer), f"{row.ratio:.2f}", row.peer_setup)
        yield f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |"
