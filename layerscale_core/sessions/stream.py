"""A session's stream: entries that were acknowledged and wait to be computed, and the counts a client can wait for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

Entry = Mapping[str, Any]

COALESCING_S = 0.001
"""How long the first entry of a batch waits for others."""


@dataclass(frozen=True, slots=True)
class PushAck:
    """What became of a push.

    Attributes:
        num_dropped: entries for which the ring had no room; the newest of the push.
        queue_size: entries that wait now.
    """

    num_pushed: int
    num_dropped: int
    queue_size: int
    queue_capacity: int
    total_enqueued: int
    total_dropped: int


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """A stream's life so far.

    Attributes:
        num_in_flight: entries that left the ring and are not yet processed.
        items_processed: entries that are in the KV cache, or were and have left the window.
        has_failed: the last batch could not be read or computed; its entries are lost, and counted as processed.
    """

    queue_size: int = 0
    num_in_flight: int = 0
    total_enqueued: int = 0
    total_dropped: int = 0
    batches_processed: int = 0
    items_processed: int = 0
    process_time_us: int = 0
    has_failed: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether all that was acknowledged is processed."""
        return self.queue_size == self.num_in_flight == 0


@dataclass(frozen=True, slots=True)
class StreamTotals:
    """What came of all streams together, those of deleted sessions included.

    Attributes:
        num_evaluations: flash queries answered.
    """

    num_enqueued: int = 0
    num_dropped: int = 0
    num_processed: int = 0
    num_evaluations: int = 0

    def plus(self, counts: StreamCounts, num_evaluations: int) -> StreamTotals:
        """With another session's counts."""
        return StreamTotals(
            self.num_enqueued + counts.total_enqueued,
            self.num_dropped + counts.total_dropped,
            self.num_processed + counts.items_processed,
            self.num_evaluations + num_evaluations,
        )


class EntryRing:
    """A bounded queue of entries with its counts. Any thread; nobody waits for longer than a few operations take.

    ``queue_size + num_in_flight + items_processed == total_enqueued`` always: an entry that is in none of a client's
    sight is being computed.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._in_flight: deque[Entry] = deque()
        self._counts = StreamCounts()

    @property
    def counts(self) -> StreamCounts:
        """The counts now."""
        return self._counts

    def push(self, entries: Sequence[Entry]) -> PushAck:
        """Enqueue what there is room for, the first ones first."""
        with self._lock:
            counts = self._counts
            num_pushed = min(len(entries), max(0, self.capacity - len(self._entries)))  # put back may be too many
            self._entries.extend(entries[:num_pushed])
            self._counts = counts = replace(
                counts,
                queue_size=len(self._entries),
                total_enqueued=counts.total_enqueued + num_pushed,
                total_dropped=counts.total_dropped + len(entries) - num_pushed,
            )
            return PushAck(
                num_pushed,
                len(entries) - num_pushed,
                counts.queue_size,
                self.capacity,
                counts.total_enqueued,
                counts.total_dropped,
            )

    def peek(self, max_entries: int) -> list[Entry]:
        """The oldest entries, which stay."""
        with self._lock:
            return list(islice(self._entries, max_entries))

    def take(self, max_entries: int) -> list[Entry]:
        """Take the oldest entries out, to be processed or put back."""
        with self._lock:
            taken = [self._entries.popleft() for _ in range(min(max_entries, len(self._entries)))]
            self._in_flight.extend(taken)
            self._counts = replace(
                self._counts,
                queue_size=len(self._entries),
                num_in_flight=self._counts.num_in_flight + len(taken),
            )
            return taken

    def put_back(self, entries: Sequence[Entry]) -> None:
        """Undo the end of a ``take``; pushes that came in between may make them more than the capacity."""
        with self._lock:
            self._entries.extendleft(self._in_flight.pop() for _ in entries)
            self._counts = replace(
                self._counts,
                queue_size=len(self._entries),
                num_in_flight=self._counts.num_in_flight - len(entries),
            )

    def settle(self, num_entries: int, process_time_us: int, *, failed: bool = False) -> None:
        """A batch is processed."""
        with self._lock:
            for _ in range(num_entries):
                self._in_flight.popleft()
            counts = self._counts
            self._counts = replace(
                counts,
                num_in_flight=counts.num_in_flight - num_entries,
                batches_processed=counts.batches_processed + 1,
                items_processed=counts.items_processed + num_entries,
                process_time_us=counts.process_time_us + process_time_us,
                has_failed=failed,
            )

    def unprocessed(self) -> tuple[list[Entry], StreamCounts]:
        """The entries that are acknowledged and not yet processed, and the counts as if all of them waited."""
        with self._lock:
            entries = [*self._in_flight, *self._entries]
            return entries, replace(self._counts, queue_size=len(entries), num_in_flight=0)

    def restore(self, entries: Sequence[Entry], counts: StreamCounts) -> None:
        """Begin where ``unprocessed`` says that another ring was left; it may hold more than this one would take."""
        with self._lock:
            self._entries.extend(entries)
            self._counts = counts
