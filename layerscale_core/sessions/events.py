"""What the subscribers of a session are told, and who they are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connected:
    """First: where the session stands.

    Attributes:
        num_flash_queries: registered ones, answered or not.
    """

    session_id: str
    data_version: int
    is_streaming: bool
    num_flash_queries: int


@dataclass(frozen=True, slots=True)
class DataUpdated:
    """A batch of data is in the KV cache."""

    data_version: int
    data_count: int
    pos_next: int


@dataclass(frozen=True, slots=True)
class FlashReady:
    """A Flash Query has its first answer, or another one.

    Attributes:
        confidence: logit gap of the answer's first token.
        evaluated_at: Unix seconds.
    """

    id: int
    query: str
    value: str
    data_version: int
    confidence: float
    evaluated_at: int


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """Last: the session is gone."""


SessionEvent = Connected | DataUpdated | FlashReady | SessionClosed

Subscriber = Callable[[SessionEvent], None]
"""Receives a session's events in order on the engine thread; must return at once."""


class Subscribers:
    """Fans a session's events out. Thread: engine. One whose call fails is dropped, and the others are told."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def add(self, subscriber: Subscriber) -> None:
        """Tell a subscriber of everything from now on."""
        self._subscribers.append(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """Tell it nothing more; unknown ones are no mistake."""
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)

    def tell(self, event: SessionEvent) -> None:
        """Tell everybody."""
        for subscriber in list(self._subscribers):
            try:
                subscriber(event)
            except Exception:
                logger.exception("a subscriber failed and is dropped")
                self.remove(subscriber)
