"""One session under load: what is pushed, what comes back, and whether it all fits together."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from layerscale import LayerScale

BURST = 30
"""Entries of the first push: they fill the window, and as it slides use every page of the session's memory once."""

MAX_ENTRIES = 3
"""Most entries of every later push."""

NUM_SUBSCRIBERS = 2
ANSWER_TOKENS = 2
SETTLE_LIMIT_S = 300.0
END_LIMIT_S = 30.0

_POLL_S = 0.2


@dataclass(slots=True)
class Outcome:
    """What became of a session.

    Attributes:
        num_answers: answers of Flash Queries that subscribers were told of.
        faults: what did not hold, in words.
    """

    num_pushed: int = 0
    num_versions: int = 0
    num_answers: int = 0
    slowest_push_s: float = 0.0
    faults: list[str] = field(default_factory=list)


class LoadSession:
    """A session with Flash Queries and subscribers."""

    def __init__(self, client: LayerScale, rng: random.Random, num_queries: int, window: int) -> None:
        self._client = client
        self._random = rng
        self._outcome = Outcome()
        made = client.sessions.create(
            type="ohlcv",
            prompt="Daily bars of a stock, the oldest first.\n",
            window_size=window,
            flash=[{"query": f"Question {number}: ", "max_tokens": ANSWER_TOKENS} for number in range(num_queries)],
            mark_prefix=True,
        )
        self._id = made.session_id
        self._streams = [client.sessions.events(self._id) for _ in range(NUM_SUBSCRIBERS)]
        self._seen: list[list[Any]] = [[] for _ in self._streams]
        self._listeners = [
            threading.Thread(target=seen.extend, args=(stream,), daemon=True)
            for seen, stream in zip(self._seen, self._streams, strict=True)
        ]
        for listener in self._listeners:
            listener.start()
        while not all(self._seen):  # first each is told that it is connected; from then on it misses nothing
            time.sleep(_POLL_S)

    def push_until(self, deadline: float, interval_s: float) -> None:
        """Push a burst, and then some entries now and then."""
        self._push(BURST)
        while time.monotonic() < deadline:
            time.sleep(self._random.expovariate(1 / interval_s))
            self._push(self._random.randint(1, MAX_ENTRIES))

    def finish(self) -> Outcome:
        """Wait until all is processed, compare counts and events, and delete the session."""
        outcome = self._outcome
        status = self._settled_status()
        counts = status.statistics
        outcome.num_versions = counts.batches_processed
        self._check(counts.items_processed == outcome.num_pushed, f"{counts.items_processed} entries processed")
        self._check(counts.total_enqueued == outcome.num_pushed, f"{counts.total_enqueued} entries enqueued")
        self._check(counts.total_dropped == 0, f"{counts.total_dropped} entries dropped")
        self._check(not status.streaming.error, "the stream has failed")
        stored = self._client.sessions.list_flash(self._id)
        self._check(stored.current_data_version == outcome.num_versions, "a version is no batch")
        self._client.sessions.delete(self._id)
        for listener, seen in zip(self._listeners, self._seen, strict=True):
            listener.join(END_LIMIT_S)
            self._check(not listener.is_alive(), "a subscriber was not told of the end")
            self._check_events(seen)
        return outcome

    def _push(self, num_entries: int) -> None:
        """Every acknowledgement has to say what really happened."""
        outcome, started = self._outcome, time.monotonic()
        ack = self._client.sessions.push(self._id, [self._entry() for _ in range(num_entries)])
        outcome.slowest_push_s = max(outcome.slowest_push_s, time.monotonic() - started)
        outcome.num_pushed += num_entries
        self._check(ack.pushed == num_entries, f"{ack.pushed} of {num_entries} entries were taken")
        self._check(ack.total_enqueued == outcome.num_pushed, f"{ack.total_enqueued} of {outcome.num_pushed} enqueued")

    def _settled_status(self) -> Any:
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while True:
            status = self._client.sessions.stream_status(self._id)
            is_settled = status.statistics.items_processed >= self._outcome.num_pushed
            if is_settled or time.monotonic() > deadline:
                return status
            time.sleep(_POLL_S)

    def _check_events(self, events: list[Any]) -> None:
        versions = [event.data_version for event in events if event.type == "data_updated"]
        expected = list(range(1, self._outcome.num_versions + 1))
        self._check(versions == expected, f"a subscriber saw {len(versions)} of {len(expected)} versions")
        newest = 0
        for event in events:
            if event.type == "flash_ready":
                self._outcome.num_answers += 1
                self._check(event.data_version <= newest, "an answer came before its data")
            else:
                self._check(event.data_version >= newest, "a version went back")
                newest = event.data_version

    def _entry(self) -> dict[str, float]:
        """Few digits, so that the model has little to compute."""
        close = self._random.randint(50, 90)
        return {"o": close - 1, "h": close + 2, "l": close - 2, "c": close, "v": self._random.randint(1, 9)}

    def _check(self, held: bool, fault: str) -> None:
        if not held:
            self._outcome.faults.append(fault)
