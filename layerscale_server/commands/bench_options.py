"""Options that the benchmarks share, and what they do with their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from layerscale_server.bench.chart import Chart, svg_of
from layerscale_server.bench.report import write_json, write_text
from layerscale_server.options import option_of
from layerscale_server.rows import Row
from layerscale_server.settings import SETTING_ROWS

MODEL_ROWS = tuple(
    row
    for row in SETTING_ROWS
    if row.name in {"model", "quantization", "cpu_offload_gb", "kv_cache_type", "activation_type", "backend", "threads"}
)
"""The settings of a model that a benchmark takes."""

COUNT = click.IntRange(min=1)
SECONDS = click.FloatRange(min=0, min_open=True)


class IntList(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between them."""

    name = "numbers"

    def __init__(self, minimum: int) -> None:
        self._minimum = minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers; a default is parsed as well."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers such as 1,8", param, ctx)
        if min(numbers) < self._minimum:
            self.fail(f"{min(numbers)} is less than {self._minimum}", param, ctx)
        return numbers


def option(flag: str, *, help: str, **attributes: Any) -> click.Option:  # noqa: A002 (the word every option parser uses)
    """An option whose default is shown."""
    return click.Option([flag], help=help, show_default=True, **attributes)


def seed_option() -> click.Option:
    """``--seed``."""
    return option("--seed", type=int, default=0, metavar="N", help="what is random is the same for the same seed")


def report_options() -> list[click.Option]:
    """``--json`` and ``--plot``."""
    path = click.Path(dir_okay=False, path_type=Path)
    return [
        click.Option(["--json", "json_path"], type=path, metavar="FILE", help="write every sample to FILE"),
        click.Option(["--plot", "plot_path"], type=path, metavar="FILE.svg", help="draw the result into FILE.svg"),
    ]


def command(
    name: str, callback: Callable[..., None], settings: Sequence[Row], options: Sequence[click.Option]
) -> click.Command:
    """A benchmark with the options that all have; its help is the callback's docstring."""
    return click.Command(
        name,
        callback=callback,
        params=[*(option_of(row) for row in settings), *options, seed_option(), *report_options()],
        help=callback.__doc__,
    )


def save(json_path: Path | None, plot_path: Path | None, report: dict[str, Any], charts: Sequence[Chart]) -> None:
    """Write what was asked for.

    Raises:
        BenchmarkError: it cannot be written.
    """
    if json_path is not None:
        write_json(json_path, report)
    if plot_path is not None:
        write_text(plot_path, svg_of(charts))
