"""What is known of one plugin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT_co = TypeVar("ItemT_co", covariant=True)


@dataclass(slots=True)
class Plugin:
    """A plugin that was found, and what became of it.

    Attributes:
        name: of its entry point.
        distribution: who brought it, with its version.
        spec_version: what it was written for; None when it could not be read.
        hooks: those it implements, sorted.
        cause: why it is broken and left out, in one line; None while it works.
        notice: what its users should know although it works.
    """

    name: str
    distribution: str
    spec_version: int | None = None
    hooks: tuple[str, ...] = ()
    cause: str | None = None
    notice: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution})"


@dataclass(frozen=True, slots=True)
class Contribution(Generic[ItemT_co]):
    """One object that a plugin brought through a hook."""

    plugin: Plugin
    item: ItemT_co


def one_line(error: BaseException) -> str:
    """An exception as a cause to show: its type and message without line breaks."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
