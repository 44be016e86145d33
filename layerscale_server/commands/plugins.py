"""``layerscale plugins``: what was found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import click
from rich.console import Console

from layerscale_core.plugins import Plugin, PluginRegistry
from layerscale_core.version import SPEC_VERSION
from layerscale_server.commands.tables import print_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of a table")
def plugins(as_json: bool) -> None:
    """List the installed plugins, with the cause where one is broken."""
    found = PluginRegistry.discover().plugins()
    if as_json:
        click.echo(
            json.dumps({"spec_version": SPEC_VERSION, "plugins": [dataclasses.asdict(plugin) for plugin in found]})
        )
    else:
        print_plugins(Console(), found)


def print_plugins(console: Console, found: Sequence[Plugin]) -> None:
    """A row for each plugin."""
    print_table(
        console,
        f"Plugins (spec version {SPEC_VERSION})",
        ("name", "distribution", "spec", "hooks", "state"),
        [
            (
                plugin.name,
                plugin.distribution,
                "" if plugin.spec_version is None else str(plugin.spec_version),
                ", ".join(hook.removeprefix("layerscale_") for hook in plugin.hooks),
                _state(plugin),
            )
            for plugin in found
        ],
    )


def _state(plugin: Plugin) -> str:
    if plugin.cause is not None:
        return f"broken: {plugin.cause}"
    return plugin.notice or "ok"
