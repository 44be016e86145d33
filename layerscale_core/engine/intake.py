"""Where other threads meet the engine thread: every lock of the engine is in this file."""

from __future__ import annotations

import threading
from collections.abc import Callable

from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.engine.waiting_queue import WaitingQueue
from layerscale_core.errors import InvalidRequestError, ShuttingDownError
from layerscale_core.specs.scheduler import Priority


class Intake:
    """The live requests by id, the queue of those not yet admitted, and the news the engine thread wakes up for.

    The lock is held for a few operations at a time, never during a step or while a client is told something.

    Args:
        waiting: used under the lock from now on.
    """

    def __init__(self, waiting: WaitingQueue) -> None:
        self._changed = threading.Condition()
        self._waiting = waiting
        self._live: dict[str, LiveSequence] = {}
        self._cancelled: list[LiveSequence] = []
        self._posted: list[Callable[[], None]] = []
        self._has_news = False
        self._is_accepting = True
        self._is_stopping = False
        self._busy_since = 0.0

    # Any thread

    def check_accepting(self, num_prompt_tokens: int) -> None:
        """Whether a prompt of this length would be accepted now.

        Raises:
            QueueFullError: too much is waiting.
            ShuttingDownError: nothing is accepted any more.
        """
        with self._changed:
            if not self._is_accepting:
                raise ShuttingDownError("the server is shutting down and accepts no work")
            self._waiting.check_room(num_prompt_tokens)

    def accept(self, sequence: LiveSequence) -> None:
        """Queue a sequence.

        Raises:
            QueueFullError, ShuttingDownError: as ``check_accepting``.
            InvalidRequestError: its id is in use.
        """
        with self._changed:
            self.check_accepting(sequence.prompt_len)
            self._enlist(sequence)
            self._waiting.push(sequence)
            self._announce()

    def post(self, call: Callable[[], None]) -> None:
        """Have something called on the engine thread before the next step.

        Raises:
            ShuttingDownError: there will be none.
        """
        with self._changed:
            if self._is_stopping:
                raise ShuttingDownError("the server is shutting down and accepts no work")
            self._posted.append(call)
            self._announce()

    def cancel(self, request_id: str) -> None:
        """Have a live request ended before the next step; any other id is ignored."""
        with self._changed:
            if request_id in self._live:
                self._cancelled.append(self._live[request_id])
                self._announce()

    def close(self) -> None:
        """Accept nothing any more."""
        with self._changed:
            self._is_accepting = False

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Wait until no request is live; returns whether that came true in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._live, timeout_s)

    def stop(self) -> None:
        """Have the engine thread leave its loop."""
        with self._changed:
            self._is_accepting = False
            self._is_stopping = True
            self._announce()

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._is_stopping

    @property
    def num_waiting(self) -> tuple[int, int]:
        """Requests and prompt tokens that wait."""
        with self._changed:
            return len(self._waiting), self._waiting.num_prompt_tokens

    @property
    def busy_since(self) -> float:
        """Clock reading when a request last came while none was live."""
        return self._busy_since

    # Engine thread; it alone takes requests out

    @property
    def has_news(self) -> bool:
        """Whether there is any since ``take_posted``. Asked at every step, without the lock."""
        return self._has_news

    def take_posted(self) -> list[Callable[[], None]]:
        """What was posted since the last time. All news counts as seen from here on."""
        with self._changed:
            self._has_news = False
            posted, self._posted = self._posted, []
            return posted

    def accept_resident(self, sequence: LiveSequence) -> None:
        """Make a session's sequence live; it does not queue.

        What a client was promised still begins after ``close``, work in the background does not.

        Raises:
            ShuttingDownError: nothing of its kind begins any more.
            InvalidRequestError: its id is in use.
        """
        with self._changed:
            is_promised = sequence.priority is Priority.INTERACTIVE
            if self._is_stopping or not (self._is_accepting or is_promised):
                raise ShuttingDownError("the server is shutting down and accepts no work")
            self._enlist(sequence)

    def take_cancelled(self) -> list[LiveSequence]:
        """The live sequences to end before the next step, each once."""
        with self._changed:
            cancelled, self._cancelled = self._cancelled, []
            return [each for each in dict.fromkeys(cancelled) if self._live.get(each.request.request_id) is each]

    def head(self) -> LiveSequence | None:
        """The sequence to admit next; nobody overtakes it. Asked every step: without the lock."""
        return self._waiting.head()

    def admit_head(self, now: float) -> None:
        """Take the head out of the queue; it stays live."""
        with self._changed:
            self._waiting.pop(now)

    def forget(self, sequence: LiveSequence) -> None:
        """A live sequence ends; its id is free again."""
        with self._changed:
            del self._live[sequence.request.request_id]
            if sequence.admission is None:
                self._waiting.remove(sequence)
            self._changed.notify_all()

    def live(self) -> list[LiveSequence]:
        """Every live sequence, in the order of arrival."""
        with self._changed:
            return list(self._live.values())

    def abandon(self) -> list[LiveSequence]:
        """Accept nothing any more and forget all live sequences at once; returns them."""
        with self._changed:
            self._is_accepting = False
            self._is_stopping = True
            live = list(self._live.values())
            self._live.clear()
            self._waiting.clear()
            self._changed.notify_all()
            return live

    def wait_for_news(self) -> None:
        """Sleep until something was posted, accepted or cancelled since ``take_posted``, or ``stop`` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_news or self._is_stopping)

    def _enlist(self, sequence: LiveSequence) -> None:
        if sequence.request.request_id in self._live:
            raise InvalidRequestError("request_id is in use", param="request_id")
        if not self._live:
            self._busy_since = sequence.submitted_at
        self._live[sequence.request.request_id] = sequence

    def _announce(self) -> None:
        self._has_news = True
        self._changed.notify_all()
