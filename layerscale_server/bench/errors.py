"""What ends a benchmark."""

from __future__ import annotations

import click


class BenchmarkError(click.ClickException):
    """A benchmark cannot go on; its message is one line for a person."""
