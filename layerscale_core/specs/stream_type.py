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
        """Check one entry and return a new one with the declared fields only; the given one stays as it is.

        JSON can carry what is returned, and validating that again returns it unchanged: entries are saved and restored.

        Raises:
            InvalidRequestError: its ``param`` names the field that is missing or wrong.
        """
        ...

    def render(self, entry: Mapping[str, Any]) -> str:
        """A validated entry as one short line for the model; the same entry always gives the same text.

        Every character prints, whatever texts an entry holds: they come from outside, and must not break the line. An
        entry for which this raises is logged and lost; those behind it go on.
        """
        ...

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The window's statistics as a new mapping; zeros and empty strings for an empty window.

        Fields and their types do not depend on the window, numbers are finite, and JSON can carry all of it. ``type``
        and ``count`` are the server's own, and are not among them. Clients may ask after every batch: ten thousand
        entries should take milliseconds.

        Args:
            entries: validated ones, oldest first, to index or iterate over; a deque cannot be sliced.
        """
        ...
