"""The board as one screen of a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from board import Board, milliseconds
from market_data import Bar
from questions import AD_HOC, LAST_CLOSE
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

WIDTH = 112
BARS_SHOWN = 5
ROWS_SHOWN = 7
TOP_HEIGHT = BARS_SHOWN + 4
CURVE_BARS = 48
_CURVE = "▁▂▃▄▅▆▇█"


class Screen:
    """Drawn anew whenever it is shown."""

    def __init__(self, board: Board, title: str) -> None:
        self._board = board
        self._title = title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self._title, style="bold")
        if options.max_width >= WIDTH:
            top = Table.grid()
            top.add_row(self._bars_panel(), self._answers_panel())
            yield top
        else:
            yield from (self._bars_panel(), self._answers_panel())
        yield self._comparisons_panel(min(WIDTH, options.max_width))

    def _bars_panel(self) -> Panel:
        table = Table(box=None, pad_edge=False)
        for name in ("", "open", "high", "low", "close", "volume"):
            table.add_column(name, justify="right", header_style="dim")
        shown: list[Bar | None] = [*self._board.bars[-BARS_SHOWN:]]
        for bar in [None] * (BARS_SHOWN - len(shown)) + shown:
            if bar is None:
                table.add_row()
                continue
            colour = "green" if bar.close >= bar.open else "red"
            prices = (f"{price:.2f}" for price in (bar.open, bar.high, bar.low))
            close = Text(f"{bar.close:.2f}", style=colour)
            table.add_row(Text(bar.date, style="dim"), *prices, close, f"{bar.volume / 1e6:.1f} M")
        curve = Text(curve_of([bar.close for bar in self._board.bars[-CURVE_BARS:]]), style="cyan")
        title = f"GOOG, day by day: bar {len(self._board.bars)}"
        return Panel(
            Group(table, curve),
            title=title,
            title_align="left",
            border_style="cyan",
            width=WIDTH // 2,
            height=TOP_HEIGHT,
        )

    def _answers_panel(self) -> Panel:
        table = Table(box=None, pad_edge=False)
        table.add_column("registered once", header_style="dim")
        table.add_column("answer", justify="right", header_style="dim", style="bold")
        table.add_column("sure by", justify="right", header_style="dim")
        table.add_column("typical miss", justify="right", header_style="dim")
        for question, standing in self._board.standings.items():
            miss = f"{statistics.median(standing.misses):.2%} of {len(standing.misses)}" if standing.misses else ""
            table.add_row(question.text.strip(), standing.answer, f"{standing.confidence:.1f}", miss)
        notes = Text(
            "Flash Queries: answered again after every bar.\nSure by: logit gap of the answer's first digit.",
            style="dim",
        )
        return Panel(
            Group(table, "", notes),
            title="answers as they change",
            title_align="left",
            border_style="green",
            width=WIDTH - WIDTH // 2,
            height=TOP_HEIGHT,
        )

    def _comparisons_panel(self, width: int) -> Panel:
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("bars", justify="right", header_style="dim")
        table.add_column("tokens held", justify="right", header_style="dim")
        table.add_column("ask the session", justify="right", header_style="dim", style="bold green")
        table.add_column("", justify="right")
        table.add_column("read all again", justify="right", header_style="dim", style="red")
        table.add_column("", justify="right")
        table.add_column("longer by", justify="right", header_style="dim", style="bold")
        table.add_column("ask the registered", justify="right", header_style="dim", style="bold green")
        for row in self._board.comparisons[-ROWS_SHOWN:]:
            table.add_row(
                str(row.num_bars),
                f"{row.num_tokens:,}",
                milliseconds(row.asked_s),
                Text(f"{row.asked_tokens} tokens", style="dim"),
                milliseconds(row.reread_s),
                Text(f"{row.reread_tokens:,} tokens", style="dim"),
                f"{row.times_longer:.0f} ×",
                milliseconds(row.stored_s),
            )
        notes = Text(
            f"Asked: “{AD_HOC.text.strip()}”, {AD_HOC.max_tokens} tokens of answer; registered: "
            f"“{LAST_CLOSE.text.strip()}”. Times are the client's, one request each; bars rest meanwhile.\n"
            "Read again: the same text to the same server as a request without a session; its first line is unique, so"
            " that no cache knows it.",
            style="dim",
        )
        title = "asking now …" if self._board.is_comparing else "one question, asked in three ways"
        return Panel(Group(table, "", notes), title=title, title_align="left", border_style="magenta", width=width)


def curve_of(values: Sequence[float]) -> str:
    """Values as a row of blocks, from the lowest to the highest."""
    if not values:
        return ""
    lowest, highest = min(values), max(values)
    scale = (len(_CURVE) - 1) / ((highest - lowest) or 1)
    return "".join(_CURVE[round((value - lowest) * scale)] for value in values)
