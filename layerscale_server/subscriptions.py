"""Sessions' events, from the engine's thread to the event loop: one bounded queue for each subscriber."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import TracebackType
from typing import Self

from layerscale_core.errors import QueueFullError, ShuttingDownError
from layerscale_core.sessions import Session, SessionClosed, SessionEvent
from layerscale_server.event_messages import Message, message_of
from layerscale_server.inbox import Inbox
from layerscale_server.logging import get_logger

_MAX_BATCH = 64
"""Most messages that are written together: each subscriber has a copy of its own of what it is being sent."""


logger = get_logger("layerscale.events")


class End(enum.Enum):
    """Why a subscription ended."""

    LEFT = enum.auto()
    SESSION_DELETED = enum.auto()
    SHUTDOWN = enum.auto()
    TOO_SLOW = enum.auto()


class Subscription:
    """What one subscriber is still to be told. Event loop only. Leaving its ``async with`` ends it.

    Args:
        max_waiting: messages that may wait; one more, and the subscriber is too slow.
    """

    def __init__(self, max_waiting: int) -> None:
        self.end: End | None = None
        self._max_waiting = max_waiting
        self._waiting: deque[Message] = deque()
        self._has_news = asyncio.Event()
        self._when_ended: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.cancel()

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have something called once, at the end."""
        self._when_ended = call

    def put(self, message: Message) -> None:
        """Tell the subscriber something, in its turn; after the end nothing is told."""
        if self.end is not None:
            return
        if len(self._waiting) >= self._max_waiting:
            self.finish(End.TOO_SLOW)
            return
        self._waiting.append(message)
        self._has_news.set()

    def finish(self, reason: End) -> None:
        """Nothing follows what waits now. The first reason counts."""
        if self.end is None:
            self.end = reason
            self._has_news.set()
            self._when_ended()

    def cancel(self) -> None:
        """Nobody listens any more. Idempotent."""
        self._waiting.clear()
        self.finish(End.LEFT)

    async def batches(self, silence_s: float | None = None) -> AsyncIterator[list[Message]]:
        """The messages in order until the end, as many at a time as wait, within reason.

        Args:
            silence_s: after so long without a message an empty batch comes; None = never.
        """
        while self._waiting or self.end is None:
            if not self._waiting:
                self._has_news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(silence_s):
                        await self._has_news.wait()
            if self._waiting or self.end is None:
                yield [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_BATCH))]


class Subscriptions:
    """All subscribers of a server; its methods are called on the event loop.

    Sessions tell an event to all their subscribers in a row, who thus share one message.

    Args:
        max_per_session: subscribers that one session may have.
    """

    def __init__(self, max_per_session: int) -> None:
        self._max_per_session = max_per_session
        self._inbox = Inbox[Subscription, SessionEvent](self._tell)
        self._is_closed = False
        self._open: set[Subscription] = set()
        self._num_of_session: Counter[str] = Counter()
        self._told: tuple[SessionEvent, Message] | None = None  # the last event, which others may be about to be told

    def __len__(self) -> int:
        return len(self._open)

    async def subscribe(self, session: Session, max_waiting: int) -> Subscription:
        """Begin to listen: first come ``Connected`` and the stored answers, then whatever happens.

        Raises:
            NotFoundError: the session has just been deleted.
            QueueFullError: it has as many subscribers as it may have.
            ShuttingDownError: nobody is told anything any more.
        """
        if self._is_closed:
            raise ShuttingDownError("the server is shutting down and accepts no work")
        if self._num_of_session[session.session_id] >= self._max_per_session:
            raise QueueFullError(
                f"{self._max_per_session} listeners to the events of this session are all that "
                "--limit event_subscribers allows: close one, or raise it"
            )
        subscription = Subscription(max_waiting)
        told = partial(self._inbox.put, asyncio.get_running_loop(), subscription)
        subscription.when_ended(partial(self._forget, session, subscription, told))
        self._open.add(subscription)
        self._num_of_session[session.session_id] += 1
        try:
            await asyncio.shield(asyncio.wrap_future(session.subscribe(told)))
        except BaseException:
            subscription.cancel()
            raise
        return subscription

    def close(self) -> None:
        """End every subscription once it has been told what waits, and take no more."""
        self._is_closed = True
        for subscription in list(self._open):
            subscription.finish(End.SHUTDOWN)

    def _forget(self, session: Session, subscription: Subscription, told: Callable[[SessionEvent], None]) -> None:
        self._open.discard(subscription)
        self._num_of_session -= Counter([session.session_id])  # which drops a session that has none
        if subscription.end is End.TOO_SLOW:
            logger.warning("a subscriber leaves its events unread: it gets no more")
        with contextlib.suppress(ShuttingDownError):
            session.unsubscribe(told)

    def _tell(self, subscription: Subscription, event: SessionEvent) -> None:
        if isinstance(event, SessionClosed):
            subscription.finish(End.SESSION_DELETED)
            return
        if self._told is None or self._told[0] is not event:
            self._told = event, message_of(event)
        subscription.put(self._told[1])
