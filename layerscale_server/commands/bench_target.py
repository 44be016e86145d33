"""The server that a benchmark asks: one that runs, or one that is started for it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from layerscale_server.bench.api_client import ApiClient
from layerscale_server.bench.server_process import LayerScaleProcess
from layerscale_server.commands.bench_options import MODEL_ROWS
from layerscale_server.settings import LICENSE_KEY_VARIABLE, SETTING_ROWS

SERVER_ROWS = (*MODEL_ROWS, *(row for row in SETTING_ROWS if row.name == "context"))
"""The settings that a server is started with."""


def target_options() -> list[click.Option]:
    """``--url`` and ``--key-variable``."""
    return [
        click.Option(["--url"], metavar="URL", help="a server that runs; without it --model is served meanwhile"),
        click.Option(
            ["--key-variable"],
            metavar="NAME",
            help="environment variable that holds the key which the server at --url wants",
        ),
    ]


@dataclass(frozen=True, slots=True)
class Target:
    """A server that answers.

    Attributes:
        cpu_s: processor time it has taken so far; 0 if it is not ours.
    """

    client: ApiClient
    cpu_s: Callable[[], float]


@contextlib.contextmanager
def open_target(ctx: click.Context, values: Mapping[str, Any]) -> Iterator[Target]:
    """Connect to ``--url``, or serve ``--model`` until the block ends.

    Raises:
        UsageError: not just one of the two is given, or the key's variable is not set.
        BenchmarkError: no server starts.
    """
    url, model = values["url"], values["model"]
    if bool(url) == bool(model):
        raise click.UsageError("name a server with --url or a model with --model, and not both", ctx)
    if url:
        with ApiClient(url, _key(ctx, values["key_variable"])) as client:
            yield Target(client, lambda: 0.0)
        return
    with (
        tempfile.NamedTemporaryFile() as log,
        LayerScaleProcess(model, log.file, *_flags(values)) as server,
        ApiClient(server.address, os.environ.get(LICENSE_KEY_VARIABLE, "")) as client,
    ):
        yield Target(client, lambda: server.cpu_s)


def _key(ctx: click.Context, variable: str | None) -> str:
    if variable is None:
        return ""
    if not os.environ.get(variable):
        raise click.UsageError(f"--key-variable: the environment variable {variable} is not set", ctx)
    return os.environ[variable].strip()


def _flags(values: Mapping[str, Any]) -> Iterator[str]:
    for row in SERVER_ROWS:
        if row.name != "model" and values[row.name] != row.default:
            yield from (row.flag, str(values[row.name]))
