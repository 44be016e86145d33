"""What an engine in this process sends, and when."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from layerscale_core.engine import Engine, Event, Failed, Finished, Request, TerminalEvent, TokensGenerated, Usage
from layerscale_core.errors import RequestError
from layerscale_server.bench.errors import BenchmarkError


@dataclass(slots=True)
class Recording:
    """An event sink that keeps tokens and when they came, by ``time.perf_counter``.

    Attributes:
        usage: known after ``wait``.
    """

    token_ids: list[int] = field(default_factory=list)
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    _arrivals: list[tuple[float, int]] = field(default_factory=list)
    _ended: queue.SimpleQueue[TerminalEvent] = field(default_factory=queue.SimpleQueue)

    def __call__(self, event: Event) -> None:
        """Take an event, on the engine thread."""
        if isinstance(event, TokensGenerated):
            self._arrivals.append((time.perf_counter(), len(event.token_ids)))
            self.token_ids.extend(event.token_ids)
        elif isinstance(event, TerminalEvent):
            self._ended.put(event)

    def wait(self) -> None:
        """Wait for the end.

        Raises:
            BenchmarkError: the request failed.
        """
        match self._ended.get():
            case Finished(usage=usage):
                self.usage = usage
            case Failed(error=error):
                raise BenchmarkError(str(error))
            case _:
                raise BenchmarkError("a request was cancelled")

    @property
    def num_computed(self) -> int:
        """Prompt tokens that were not in the prefix cache."""
        return self.usage.prompt_tokens - self.usage.cached_tokens

    @property
    def first(self) -> float:
        """When the first token came."""
        return self._arrivals[0][0]

    @property
    def last(self) -> float:
        """When the last token came."""
        return self._arrivals[-1][0]

    def num_after(self, begun: float) -> int:
        """Tokens that came later than a moment."""
        return sum(count for moment, count in self._arrivals if moment > begun)


def record_all(engine: Engine, requests: Sequence[Request]) -> list[Recording]:
    """Submit requests between two steps, so that they begin in the same one, and wait for all of them.

    Raises:
        BenchmarkError: one of them failed.
    """
    recordings = [Recording() for _ in requests]

    def submit() -> None:
        for request, recording in zip(requests, recordings, strict=True):
            try:
                engine.submit(request, recording)
            except RequestError as error:
                recording(Failed(error))

    engine.post(submit)
    for each in recordings:
        each.wait()
    return recordings
