"""What the engine tells whoever measures it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from layerscale_core.engine.request import TerminalEvent
from layerscale_core.specs.kv_pool import PrefixMiss


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One forward pass that succeeded.

    Attributes:
        duration_s: planning, forward pass, sampling and publishing together.
        num_prefill_tokens, num_decode_tokens: tokens computed for sequences whose prompt was not, or was, in the pool.
    """

    duration_s: float
    num_seqs: int
    num_prefill_tokens: int
    num_decode_tokens: int


@dataclass(frozen=True, slots=True)
class RequestMetrics:
    """One request that ended, however it did. Times in seconds, None where that point was not reached.

    Attributes:
        queue_s: submission to admission.
        ttft_s: submission to the first token.
        tpot_s: (last token - first token) / (tokens - 1).
        prefix_miss: why not more of its prompt was found in the prefix cache; None if all whole pages were, or if it
            was never looked up.
        is_background: work that no client waits for as such: data taken in, a flash query, a prefix computed.
        end: the terminal event it was sent.
    """

    prompt_tokens: int
    completion_tokens: int
    queue_s: float | None
    ttft_s: float | None
    tpot_s: float | None
    prefix_miss: PrefixMiss | None
    is_background: bool
    end: TerminalEvent


class EngineObserver(Protocol):
    """Watches on the engine thread; must return at once. An exception is logged and changes nothing."""

    def on_step(self, metrics: StepMetrics) -> None:
        """After a step was committed."""
        ...

    def on_request_finished(self, metrics: RequestMetrics) -> None:
        """After a request's terminal event was sent."""
        ...


class NullObserver:
    """Measures nothing."""

    def on_step(self, metrics: StepMetrics) -> None:
        """Ignore it."""

    def on_request_finished(self, metrics: RequestMetrics) -> None:
        """Ignore it."""
