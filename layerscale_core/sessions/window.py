"""Which entries a session's data region keeps: the newest, within a number of entries and a number of tokens."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from layerscale_core.sessions.stream import Entry

_SPARE_PART = 8
"""When tokens are short, one part in so many of the budget is freed at once: positions then run out once in as many
tokens, and not with every batch."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tokens of the data region that leave together.

    Attributes:
        is_entry: an entry of the stream; otherwise text that was appended between entries.
    """

    num_tokens: int
    is_entry: bool


@dataclass(frozen=True, slots=True)
class Eviction:
    """What has to go so that new entries fit.

    Attributes:
        num_runs: the oldest runs held.
        num_entries: entries among them.
        num_skipped: the oldest of the new entries, which would leave at once.
    """

    num_runs: int
    num_entries: int
    num_skipped: int


def plan_eviction(held: Iterable[Run], new: Sequence[int], *, max_entries: int, max_tokens: int) -> Eviction:
    """Decide what leaves, oldest first.

    Args:
        held: what the region holds, oldest first.
        new: tokens of each new entry.
        max_entries: entries in the window.
        max_tokens: tokens of the region.
    """
    held = list(held)
    num_skipped = max(0, len(new) - max_entries)
    num_new_tokens = sum(new[num_skipped:])
    while num_new_tokens > max_tokens:
        num_new_tokens -= new[num_skipped]
        num_skipped += 1
    num_tokens = sum(run.num_tokens for run in held) + num_new_tokens
    num_entries = sum(run.is_entry for run in held) + len(new) - num_skipped
    wanted_tokens = max_tokens if num_tokens <= max_tokens else max_tokens - max_tokens // _SPARE_PART
    num_runs = num_dropped = 0
    for run in held:
        if num_tokens <= wanted_tokens and num_entries <= max_entries:
            break
        num_tokens -= run.num_tokens
        num_entries -= run.is_entry
        num_dropped += run.is_entry
        num_runs += 1
    return Eviction(num_runs, num_dropped, num_skipped)


class EntryWindow:
    """The entries that the data region holds, oldest first. Changed by the engine thread; read by any."""

    def __init__(self, max_entries: int) -> None:
        self.max_entries = max_entries
        self._entries: deque[Entry] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[Entry]:
        """The entries at one moment."""
        with self._lock:
            return list(self._entries)

    def slide(self, num_oldest: int, new: Sequence[Entry]) -> None:
        """Drop the oldest and add new ones, at once."""
        with self._lock:
            for _ in range(num_oldest):
                self._entries.popleft()
            self._entries.extend(new)
