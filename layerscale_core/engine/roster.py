"""Who runs: sequences from their admission to their ends, what they hold meanwhile, and what their clients are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layerscale_core.engine.faults import contained
from layerscale_core.engine.intake import Intake
from layerscale_core.engine.observer import EngineObserver
from layerscale_core.engine.prefix_sharing import PrefixSharing
from layerscale_core.engine.request import Cancelled, Event, Failed, TerminalEvent
from layerscale_core.engine.sequence import Admission, LiveSequence
from layerscale_core.errors import StepError
from layerscale_core.specs.kv_pool import KVPool, PageTable


class Roster:
    """The sequences that run, stateless ones in burst slots and sessions' resident ones. Thread: engine.

    Args:
        max_running: most stateless ones at once.
        clock: monotonic seconds.

    Attributes:
        running: by number, in the order of admission.
    """

    def __init__(
        self,
        pool: KVPool,
        intake: Intake,
        sharing: PrefixSharing,
        max_running: int,
        *,
        observer: EngineObserver,
        clock: Callable[[], float],
    ) -> None:
        self.running: dict[int, LiveSequence] = {}
        self._pool = pool
        self._intake = intake
        self._sharing = sharing
        self._max_running = max_running
        self._observer = observer
        self._clock = clock
        self._num_admitted = 0
        self._num_burst = 0

    def admit_waiting(self) -> None:
        """Admit in the order of arrival while there is room; whoever does not fit yet holds up all behind it."""
        while self._num_burst < self._max_running and (sequence := self._intake.head()) is not None:
            if not self._pool.can_admit(sequence.max_computed):
                assert self._num_burst, "the pool refuses a sequence that fits, and nothing will be given back"
                break
            now = self._clock()
            self._intake.admit_head(now)
            self._run(sequence, self._pool.admit(sequence.max_computed), now, is_owner=True)

    def admit_resident(self, sequence: LiveSequence, table: PageTable) -> None:
        """Run a session's sequence on a table of the session's.

        Raises:
            ShuttingDownError, InvalidRequestError: as ``Intake.accept_resident``.
        """
        self._intake.accept_resident(sequence)
        self._run(sequence, table, sequence.submitted_at, is_owner=False)
        sequence.begin(num_cached=0, miss=None)

    def tell(self, sequence: LiveSequence, events: Sequence[Event]) -> None:
        """Tell a client what came of its sequence in a step; a terminal event ends it."""
        for event in events:
            if isinstance(event, TerminalEvent):
                self.end(sequence, event)
            elif not self._send(sequence, event):
                self.end(sequence, Failed(StepError("an event could not be delivered")))
                return

    def end_cancelled(self) -> None:
        """End those that somebody cancelled."""
        for sequence in self._intake.take_cancelled():
            self.end(sequence, Cancelled())

    def end(self, sequence: LiveSequence, event: TerminalEvent) -> None:
        """The one place where a sequence ends: it gives back what it holds, then its client is told."""
        if sequence.has_ended:
            return  # whoever was told of another one's end has ended it
        sequence.has_ended = True
        self._intake.forget(sequence)
        try:
            if sequence.admission is not None:
                self._give_back(sequence, sequence.admission, event)
        finally:  # counted first: whoever has the answer finds it in the metrics
            contained(self._observer.on_request_finished, sequence.metrics(event), "the observer failed")
            self._send(sequence, event)

    def end_all(self, event: TerminalEvent) -> None:
        """End every live sequence, those that wait too."""
        for sequence in self._intake.live():
            self.end(sequence, event)

    def abandon_all(self, event: TerminalEvent) -> None:
        """Tell every client of an end without touching the books, which may be wrong."""
        self.running.clear()
        for sequence in self._intake.abandon():
            self._send(sequence, event)

    def _run(self, sequence: LiveSequence, table: PageTable, now: float, *, is_owner: bool) -> None:
        sequence.admission = Admission(self._num_admitted, table, now, is_owner=is_owner)
        self.running[self._num_admitted] = sequence
        self._num_admitted += 1
        self._num_burst += is_owner

    def _give_back(self, sequence: LiveSequence, held: Admission, event: TerminalEvent) -> None:
        del self.running[held.sequence_id]
        settle = self._sharing.withdraw if isinstance(event, Failed) else self._sharing.publish
        settle(sequence)
        if held.is_owner:
            self._num_burst -= 1
            self._pool.release(held.table)

    def _send(self, sequence: LiveSequence, event: Event) -> bool:
        return contained(sequence.sink, event, "the sink of request %s failed", sequence.request.request_id)
