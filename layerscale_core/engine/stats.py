"""The engine's state at a glance, for health checks and gauges."""

from __future__ import annotations

from dataclasses import dataclass

from layerscale_core.specs.kv_pool import PoolStats


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot; totals count since the engine was made.

    Attributes:
        num_running: sequences being computed.
        num_waiting, num_waiting_prompt_tokens: what the queue holds.
        pool: pages as of the last step.
        num_steps, num_failed_steps: forward passes that succeeded, and that did not.
        num_prompt_tokens, num_cached_tokens, num_generated_tokens: prompt tokens computed, prompt tokens found in the
            prefix cache, sampled tokens.
        num_drafted_tokens, num_accepted_tokens: tokens of drafts computed, and those of them that came true.
        healthy: False after several failed steps in a row, until one succeeds, and when the engine has broken down.
        last_progress: clock reading (``time.monotonic``) when a step last succeeded, or when work last came to an idle
            engine. Old while ``has_work``: the device hangs.
    """

    num_running: int
    num_waiting: int
    num_waiting_prompt_tokens: int
    pool: PoolStats
    num_steps: int
    num_failed_steps: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    num_drafted_tokens: int
    num_accepted_tokens: int
    healthy: bool
    last_progress: float

    @property
    def has_work(self) -> bool:
        """Whether progress is due."""
        return self.num_running + self.num_waiting > 0


@dataclass(slots=True)
class Counters:
    """What the engine thread counts; other threads read."""

    last_progress: float
    num_steps: int = 0
    num_failed_steps: int = 0
    num_failed_in_a_row: int = 0
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    is_broken: bool = False

    def step_succeeded(self, now: float, num_prompt_tokens: int) -> None:
        """A step was committed."""
        self.num_steps += 1
        self.num_failed_in_a_row = 0
        self.num_prompt_tokens += num_prompt_tokens
        self.last_progress = now

    def step_failed(self) -> None:
        """A step failed as a whole."""
        self.num_failed_steps += 1
        self.num_failed_in_a_row += 1
