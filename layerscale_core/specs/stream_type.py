"""Stream types: what a session's entries look like, and how they are written for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class StreamType(Protocol):
    """One kind of live data (market bars, sensors, events, vitals …)."""

    @property
    def name(self) -> str:
        """The session ``type`` that selects it."""
        ...

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check one entry and return it with the declared fields only.

        Raises:
            InvalidRequestError: names the field that is missing or wrong.
        """
        ...

    def render(self, entry: Mapping[str, Any]) -> str:
        """A validated entry as one short line for the model; the same entry always gives the same text."""
        ...

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The window's statistics, oldest entry first; zeros and empty strings for an empty window."""
        ...
