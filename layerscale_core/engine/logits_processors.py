"""What a request changes in its logits before a token is picked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from layerscale_core.engine.sampling_params import SamplingParams


class LogitsProcessor(Protocol):
    """One change to one sequence's logits."""

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Change the logits [vocab_size] of the next token, in place."""
        ...

    def observe(self, token_id: int) -> None:
        """Learn the token that was picked."""
        ...


def make_logits_processors(
    params: SamplingParams, prompt_ids: tuple[int, ...], max_new_tokens: int, stop_ids: Collection[int]
) -> list[LogitsProcessor]:
    """The changes a request asks for, in the order in which they apply; usually none."""
    processors: list[LogitsProcessor] = []
    if params.presence_penalty or params.frequency_penalty or params.repetition_penalty != 1.0:
        processors.append(Penalties(params, prompt_ids, max_new_tokens))
    if params.logit_bias:
        processors.append(LogitBias(params.logit_bias))
    if params.min_tokens and stop_ids:
        processors.append(MinTokens(params.min_tokens, stop_ids))
    return processors


class Penalties:
    """Repetition penalty (arXiv:1909.05858), then OpenAI's frequency and presence penalties."""

    def __init__(self, params: SamplingParams, prompt_ids: tuple[int, ...], max_new_tokens: int) -> None:
        self._repetition = np.float32(params.repetition_penalty)
        self._frequency = np.float32(params.frequency_penalty)
        self._presence = np.float32(params.presence_penalty)
        # Prompt tokens count for the repetition penalty alone: they are seen, and generated 0 times.
        seen = np.unique(prompt_ids) if params.repetition_penalty != 1.0 else np.empty(0, np.int64)
        self._token_ids = np.zeros(seen.size + max_new_tokens, np.int64)
        self._token_ids[: seen.size] = seen
        self._counts = np.zeros(seen.size + max_new_tokens, np.float32)
        self._index = {int(token_id): index for index, token_id in enumerate(seen)}

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Lower the logits of what was seen."""
        num_seen = len(self._index)
        token_ids, counts = self._token_ids[:num_seen], self._counts[:num_seen]
        seen = logits[token_ids]
        seen = np.where(seen > 0, seen / self._repetition, seen * self._repetition)
        logits[token_ids] = seen - self._frequency * counts - self._presence * (counts > 0)

    def observe(self, token_id: int) -> None:
        """Count a generated token."""
        index = self._index.setdefault(token_id, len(self._index))
        self._token_ids[index] = token_id
        self._counts[index] += 1


class LogitBias:
    """Adds to chosen logits."""

    def __init__(self, bias: Mapping[int, float]) -> None:
        self._token_ids = np.array(list(bias.keys()), np.int64)
        self._values = np.array(list(bias.values()), np.float32)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Add the bias."""
        logits[self._token_ids] += self._values

    def observe(self, token_id: int) -> None:
        """Learn nothing."""


class MinTokens:
    """Rules out the stop tokens until enough tokens are there."""

    def __init__(self, min_tokens: int, stop_ids: Collection[int]) -> None:
        self._num_missing = min_tokens
        self._stop_ids = np.array(sorted(stop_ids), np.int64)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Make the stop tokens impossible."""
        if self._num_missing > 0:
            logits[self._stop_ids] = -np.inf

    def observe(self, token_id: int) -> None:  # noqa: ARG002 (any token counts)
        """Count it."""
        self._num_missing -= 1
