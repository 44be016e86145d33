"""What one engine takes on at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds set once at start.

    Attributes:
        max_context_len: the context window: most tokens of one sequence, prompt and completion together.
        max_running: most sequences computed at once (the burst slots); further ones wait.
        max_waiting: most requests that wait.
        max_waiting_prompt_tokens: most prompt tokens that wait; None = 16 context windows.
        max_tokens_per_step: the token budget of a step. A larger one prefills faster, a smaller one keeps the gaps
            between the tokens of running answers short (arXiv:2403.02310).
        max_logits_per_step: most rows of logits a step produces; bounds memory while prompts are scored.
        max_logprobs: most alternatives reported per token.
        max_failed_steps: consecutive failures from which on the engine calls itself unhealthy.
    """

    max_context_len: int
    max_running: int
    max_waiting: int = 1024
    max_waiting_prompt_tokens: int | None = None
    max_tokens_per_step: int = 512
    max_logits_per_step: int = 128
    max_logprobs: int = 20
    max_failed_steps: int = 3

    def __post_init__(self) -> None:
        assert min(self.max_running, self.max_waiting, self.max_tokens_per_step, self.max_logits_per_step) >= 1
        assert self.waiting_prompt_tokens >= self.max_context_len, "every prompt that is allowed must be able to wait"

    @property
    def waiting_prompt_tokens(self) -> int:
        """``max_waiting_prompt_tokens`` with its default resolved."""
        if self.max_waiting_prompt_tokens is None:
            return 16 * self.max_context_len
        return self.max_waiting_prompt_tokens
