"""``layerscale pull``: fetch a model ahead of serving it."""

from __future__ import annotations

import click

from layerscale_core.plugins import PluginRegistry
from layerscale_server.hub.resolve import resolve_model
from layerscale_server.logging import configure_logging


@click.command()
@click.argument("model")
def pull(model: str) -> None:
    """Fetch MODEL into the local cache and print its path, unless it could not be served.

    MODEL is a Hugging Face repository id, alone or with what narrows it: org/name, org/name:Q4_K_M,
    org/name/file.gguf, org/name@revision. The path, of a file or of a folder of safetensors, is all that goes to
    standard output.
    """
    configure_logging("text", "info")
    click.echo(resolve_model(model, PluginRegistry.discover()).path)
