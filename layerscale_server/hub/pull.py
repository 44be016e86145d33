"""``layerscale pull``: fetch a model ahead of serving it."""

from __future__ import annotations

import sys

import click

from layerscale_core.errors import ModelNotFoundError
from layerscale_server.hub.resolve import resolve_model


@click.command()
@click.argument("model")
def pull(model: str) -> None:
    """Fetch MODEL (org/name, org/name:Q4_K_M or org/name/file.gguf) into the local cache and print its path."""
    try:
        resolved = resolve_model(model)
    except ModelNotFoundError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    click.echo(resolved.path)
