"""A client of the engine that remembers what it was told."""

from __future__ import annotations

import threading

from layerscale_core.engine import Event, Finished, PromptScored, TerminalEvent, TokenLogprob, TokensGenerated


class RecordingSink:
    """An event sink that insists on one terminal event, and on nothing after it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.violations: list[str] = []
        self._ended = threading.Event()

    def __call__(self, event: Event) -> None:
        if self._ended.is_set():
            self.violations.append(f"{event} after the end")
        self.events.append(event)
        if isinstance(event, TerminalEvent):
            self._ended.set()

    def wait(self, timeout_s: float = 30.0) -> TerminalEvent:
        """Block until the end; returns the terminal event."""
        assert self._ended.wait(timeout_s), "the request did not end"
        return self.end

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def end(self) -> TerminalEvent:
        assert not self.violations, self.violations
        end = self.events[-1]
        assert isinstance(end, TerminalEvent)
        return end

    @property
    def finished(self) -> Finished:
        assert isinstance(self.end, Finished), self.end
        return self.end

    @property
    def token_ids(self) -> list[int]:
        return [token_id for event in self._generated for token_id in event.token_ids]

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return [logprob for event in self._generated for logprob in event.logprobs]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self._generated) + self.finished.text

    @property
    def prompt_scores(self) -> list[PromptScored]:
        return [event for event in self.events if isinstance(event, PromptScored)]

    @property
    def _generated(self) -> list[TokensGenerated]:
        return [event for event in self.events if isinstance(event, TokensGenerated)]
