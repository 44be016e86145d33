"""The streaming arms: how entries come, and when questions are asked.

Entries come at fixed ticks. A question comes after ten of them, at a moment that does not depend on the ticks, and its
clock starts at the moment it was due.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from layerscale_server.bench.stream_session import Query, System

NEW_ENTRIES = 10
"""Entries between two questions."""

SIZES = (20, 60, 100, 155, 190)
"""Entries that the context has grown to in the append-only arm."""

WINDOW = 155
"""Entries of the window in the arm where it slides; of the sizes, the one at which systems are compared."""

NUM_SLIDES = 3
"""Questions that are asked of the sliding window."""

NUM_STORED = 20
"""How often a registered question with a fresh answer is asked."""

_NO_WINDOW = 10_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One question of an arm.

    Attributes:
        size: entries it is about.
        due_s: from when it was due to when it was sent; part of every latency.
        entries_behind: entries that had come and that its answer has not seen.
        cpu_s: processor time that the server took for the ten entries before it, and for the question itself; 0 where
            its process cannot be seen.
    """

    arm: str
    system: str
    size: int
    query: Query
    due_s: float
    entries_behind: int
    cpu_s: float

    @property
    def ttft_s(self) -> float:
        """Time to first token: question due → first token received."""
        return self.due_s + self.query.ttft_s

    @property
    def total_s(self) -> float:
        """Question due → last token received."""
        return self.due_s + self.query.total_s


class Arms:
    """Runs arms on one system at a time.

    Args:
        tick_s: from one entry to the next.
        cpu_s: processor time that the system's server has taken so far; 0 where that cannot be seen.
    """

    def __init__(self, system: System, tick_s: float, seed: int, cpu_s: Callable[[], float]) -> None:
        self._system = system
        self._tick_s = tick_s
        self._random = random.Random(seed)  # noqa: S311 (moments, repeatable)
        self._cpu_s = cpu_s
        self._num_entries = 0

    def append_only(self, sizes: Sequence[int] = SIZES) -> Iterator[Sample]:
        """The context grows; nothing leaves it."""
        self._begin(_NO_WINDOW)
        for size in sizes:
            self._grow_to(size - NEW_ENTRIES)
            yield self._stream_and_ask("append-only", size)

    def sliding(self, window: int = WINDOW, num_slides: int = NUM_SLIDES) -> Iterator[Sample]:
        """The newest entries count; with each that comes the oldest leaves."""
        self._begin(window)
        self._grow_to(window)
        for _ in range(num_slides):
            yield self._stream_and_ask("sliding window", window)

    def registered(self, sizes: Sequence[int] = SIZES) -> Iterator[Sample]:
        """The question is registered: asked at its moment, then again and again while its answer is fresh."""
        self._begin(_NO_WINDOW)
        for size in sizes:
            self._grow_to(size - NEW_ENTRIES)
            yield self._stream_and_ask("registered, any moment", size)
            self._system.settle()
            for _ in range(NUM_STORED):
                query = self._system.ask()
                assert query.is_stored, "a fresh answer was not used"
                yield Sample("registered, fresh", self._system.name, size, query, 0.0, 0, 0.0)

    def _begin(self, window: int) -> None:
        self._system.begin(window)
        self._num_entries = 0

    def _grow_to(self, num_entries: int) -> None:
        """Bring the stream so far and ask once, so that a prompt cache holds all but the entries to come."""
        while self._num_entries < num_entries:
            self._arrive()
        self._system.settle()
        self._system.ask()

    def _stream_and_ask(self, arm: str, size: int) -> Sample:
        cpu_s, started = self._cpu_s(), time.perf_counter()
        for number in range(1, NEW_ENTRIES + 1):
            _sleep_until(started + number * self._tick_s)
            self._arrive()
        due = started + (NEW_ENTRIES + self._random.random()) * self._tick_s
        _sleep_until(due)
        sent = time.perf_counter()
        query = self._system.ask()
        self._system.settle()
        cpu_s = self._cpu_s() - cpu_s
        entries_behind = self._num_entries - query.num_entries_seen
        return Sample(arm, self._system.name, size, query, sent - due, entries_behind, cpu_s)

    def _arrive(self) -> None:
        self._system.arrive()
        self._num_entries += 1


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))
