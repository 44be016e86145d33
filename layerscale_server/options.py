"""Settings as options of the command line."""

from __future__ import annotations

from typing import Any

import click

from layerscale_server.rows import Row

MODEL_IS_MISSING = "--model is missing: name a model file, a directory or a repository id"


class _RowType(click.ParamType[Any]):
    """Parses an option as its row says."""

    def __init__(self, described: Row) -> None:
        self.name = described.kind.__name__
        self._row = described

    def convert(self, value: Any, _param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._row.parse(value)
        except ValueError as error:
            raise click.UsageError(f"{self._row.flag} {error}", ctx) from None


def option_of(described: Row) -> click.Option:
    """The option that a setting is."""
    return click.Option(
        [described.flag],
        type=_RowType(described),
        default=None if described.default == "" else described.default,  # a default is parsed as well
        metavar=described.metavar,
        help=described.help,
        show_default=described.default not in (None, ""),
    )
