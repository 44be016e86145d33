"""What sessions may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of every session of a server.

    Attributes:
        max_sessions: that memory is reserved for.
        max_context_len: tokens of one session's context.
        ring_capacity: entries that wait in one session.
        batch_tokens: most tokens of a batch of data, unless a single entry has more. A question waits for no more.
        max_waiting: requests that wait in one session.
    """

    max_sessions: int
    max_context_len: int
    ring_capacity: int = 16_384
    batch_tokens: int = 512
    max_waiting: int = 1024
