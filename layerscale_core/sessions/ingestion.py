"""Data on its way from a session's ring into its context."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from layerscale_core.engine.request import Event, Failed, Finished
from layerscale_core.errors import RequestError, ShuttingDownError
from layerscale_core.sessions.context import tail_reserve
from layerscale_core.sessions.events import DataUpdated
from layerscale_core.sessions.lane import ContextLane
from layerscale_core.sessions.parts import SessionParts
from layerscale_core.sessions.prefill import MAX_ATTEMPTS, NO_TOKENS, Prefill
from layerscale_core.sessions.stream import Entry
from layerscale_core.sessions.window import Eviction, plan_eviction
from layerscale_core.specs.scheduler import Priority

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries ready to be computed.

    Attributes:
        token_ids: of each entry.
    """

    entries: tuple[Entry, ...]
    token_ids: tuple[tuple[int, ...], ...]


class Ingestion:
    """Takes batches into the context, one after the other. Thread: engine.

    Args:
        publish: makes visible to other threads what is committed.

    Attributes:
        data_version: counts the batches taken in.
    """

    def __init__(self, parts: SessionParts, lane: ContextLane, prefill: Prefill, publish: Callable[[], None]) -> None:
        self.data_version = 0
        self._parts = parts
        self._context = parts.context
        self._lane = lane
        self._prefill = prefill
        self._publish = publish
        self._batch: Batch | None = None
        self._num_failures = 0

    @property
    def has_batch(self) -> bool:
        """Whether a batch waits, or is being computed."""
        return self._batch is not None

    def offer(self, batch: Batch) -> None:
        """Take a batch; the one before it is settled."""
        assert self._batch is None
        self._batch = batch
        self._num_failures = 0
        self._prefill.retry()

    def start(self) -> None:
        """Bring the batch a step further: compute it, or first what it has to follow."""
        assert self._batch is not None
        if not self._context.has_data:
            self._begin_data()
        if self._context.takes_data:
            self._compute(self._batch)
        elif not self._prefill.has_given_up:
            self._prefill.start(self._prefix_failed)
        else:
            self._lose(self._batch)

    def _begin_data(self) -> None:
        """The first entry begins on a line of its own, if there is room for a line end."""
        self._context.drop_tail()
        tokens = self._context.tokens
        is_mid_line = bool(tokens) and not self._parts.tokenizer.token_bytes(tokens[-1]).endswith(b"\n")
        separator = self._parts.separator if is_mid_line else ()
        self._context.begin_data(separator if len(separator) <= self._context.room else ())

    def _compute(self, batch: Batch) -> None:
        context, started = self._context, time.monotonic()
        context.drop_tail()
        eviction = plan_eviction(
            context.window,
            [len(token_ids) for token_ids in batch.token_ids],
            max_entries=self._parts.window.max_entries,
            max_tokens=context.data_budget,
        )
        kept = batch.token_ids[eviction.num_skipped :]
        context.drop_runs(eviction.num_runs)
        context.make_positions(sum(map(len, kept)) + tail_reserve(context.context_len))
        for token_ids in kept:
            context.add_entry(token_ids)
        if not context.num_pending:
            self._commit(batch, eviction, started)
            return
        sink = partial(self._on_event, batch, eviction, started)
        try:
            self._lane.run(f"{self._parts.session_id}-data", context.num_pending, NO_TOKENS, Priority.INGESTION, sink)
        except RequestError as error:
            self._undo(batch, eviction, error)

    def _on_event(self, batch: Batch, eviction: Eviction, started: float, event: Event) -> None:
        if isinstance(event, Finished):
            self._commit(batch, eviction, started)
        elif isinstance(event, Failed):
            self._undo(batch, eviction, event.error)

    def _commit(self, batch: Batch, eviction: Eviction, started: float) -> None:
        context = self._context
        self._parts.window.slide(eviction.num_entries, batch.entries[eviction.num_skipped :])
        self.data_version += 1
        context.revision += 1
        self._batch = None
        self._publish()  # before the count that clients wait for
        self._parts.ring.settle(len(batch.entries), round((time.monotonic() - started) * 1e6))
        pos_next = context.position(context.durable_end)
        self._parts.subscribers.tell(DataUpdated(self.data_version, len(self._parts.window), pos_next))
        self._parts.has_settled(self._parts.session_id)

    def _undo(self, batch: Batch, eviction: Eviction, error: RequestError) -> None:
        """Take a batch out again that could not be computed; what it evicted is gone."""
        self._context.drop_newest(len(batch.entries) - eviction.num_skipped)
        self._parts.window.slide(eviction.num_entries, ())
        self._context.revision += eviction.num_runs > 0
        self._num_failures += 1
        if isinstance(error, ShuttingDownError):
            self._put_back(batch)
        elif self._num_failures >= MAX_ATTEMPTS:
            self._lose(batch)

    def _prefix_failed(self, error: RequestError) -> None:
        if self._batch is not None and isinstance(error, ShuttingDownError):
            self._put_back(self._batch)

    def _put_back(self, batch: Batch) -> None:
        """The engine stops: the entries wait for the next start. Nothing is settled, so that no batch follows."""
        self._parts.ring.put_back(batch.entries)
        self._batch = None

    def _lose(self, batch: Batch) -> None:
        """Give a batch up."""
        logger.error(
            "session %s: %d entries could not be computed and are lost", self._parts.session_id, len(batch.entries)
        )
        self._batch = None
        self._parts.ring.settle(len(batch.entries), 0, failed=True)
        self._parts.has_settled(self._parts.session_id)
