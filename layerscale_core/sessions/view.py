"""A session as other threads see it: one immutable snapshot, replaced after every change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionView:
    """Where a session stands. Positions are RoPE positions, -1 where it is empty; times are Unix seconds.

    Attributes:
        type: name of its stream type.
        num_tokens: tokens held, pending ones and the tail included.
        num_pending: appended tokens that are not yet computed.
        pos_next: the position that the next durable token takes.
        prefix_end: first position after the frozen prefix; 0 before it is marked.
        data_start, data_end: positions of the data region, half-open.
        data_tokens, data_count: tokens and entries of the data region.
        revision: counts changes of what is durable.
        is_busy: a request runs or waits.
    """

    session_id: str
    type: str
    context_len: int
    window_size: int
    num_tokens: int
    num_pending: int
    pos_min: int
    pos_max: int
    pos_next: int
    prefix_end: int
    data_start: int
    data_end: int
    data_tokens: int
    data_count: int
    data_version: int
    revision: int
    created_at: int
    last_used_at: int
    is_busy: bool

    @property
    def cache_usage(self) -> float:
        """Part of the context that is held."""
        return self.num_tokens / self.context_len
