"""Requests that are accepted and not yet admitted: first come, first served, and bounded."""

from __future__ import annotations

import math
from collections import deque

from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.errors import QueueFullError

_MAX_RETRY_AFTER_S = 10
"""Clients sleep through ``Retry-After`` without looking again, so a longer advice would only waste free places."""


class WaitingQueue:
    """A queue bounded in requests and in prompt tokens. Guarded by the engine's lock.

    Args:
        max_requests, max_prompt_tokens: most that may wait.
    """

    def __init__(self, max_requests: int, max_prompt_tokens: int) -> None:
        self._max_requests = max_requests
        self._max_prompt_tokens = max_prompt_tokens
        self._sequences: deque[LiveSequence] = deque()
        self._last_wait_s = 0.0
        self.num_prompt_tokens = 0

    def __len__(self) -> int:
        return len(self._sequences)

    def check_room(self, num_prompt_tokens: int) -> None:
        """Whether a prompt of this length may wait here.

        Raises:
            QueueFullError: not now. It advises to try again after the time the last one admitted had to wait.
        """
        if len(self._sequences) >= self._max_requests:
            message = f"{self._max_requests} requests are waiting already"
        elif self.num_prompt_tokens + num_prompt_tokens > self._max_prompt_tokens:
            message = f"{self.num_prompt_tokens} prompt tokens are waiting already"
        else:
            return
        raise QueueFullError(message, retry_after_s=min(max(math.ceil(self._last_wait_s), 1), _MAX_RETRY_AFTER_S))

    def push(self, sequence: LiveSequence) -> None:
        """Queue a sequence at the end; ``check_room`` was asked."""
        self._sequences.append(sequence)
        self.num_prompt_tokens += sequence.prompt_len

    def head(self) -> LiveSequence | None:
        """The sequence to admit next; nobody overtakes it."""
        return self._sequences[0] if self._sequences else None

    def pop(self, now: float) -> LiveSequence:
        """Take the head out, as it is admitted."""
        sequence = self._sequences.popleft()
        self.num_prompt_tokens -= sequence.prompt_len
        self._last_wait_s = now - sequence.submitted_at
        return sequence

    def remove(self, sequence: LiveSequence) -> None:
        """Take a sequence out that will not be admitted."""
        self._sequences.remove(sequence)
        self.num_prompt_tokens -= sequence.prompt_len

    def clear(self) -> None:
        """Take all out."""
        self._sequences.clear()
        self.num_prompt_tokens = 0
