"""From the engine's thread to the event loop: events in their order, for which the loop is woken once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Receiver = TypeVar("Receiver")
Event = TypeVar("Event")


class Inbox(Generic[Receiver, Event]):
    """Where a thread leaves events; it wakes the loop once for all that arrive until the loop looks.

    Args:
        deliver: hands an event to its receiver, on the event loop.
    """

    def __init__(self, deliver: Callable[[Receiver, Event], None]) -> None:
        self._deliver = deliver
        self._arrived: deque[tuple[Receiver, Event]] = deque()
        self._is_waking = False

    def put(self, loop: asyncio.AbstractEventLoop, receiver: Receiver, event: Event) -> None:
        """Leave an event. One thread, any one."""
        self._arrived.append((receiver, event))
        if not self._is_waking:
            self._is_waking = True
            loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._is_waking = False  # before it is emptied: what arrives from now on wakes the loop again
        while self._arrived:
            self._deliver(*self._arrived.popleft())
