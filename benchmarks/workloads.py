"""What is asked of the engines, and what is read off the answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llama_cpp_peer import Completion

CONTEXT_LEN = 4096
"""Both engines' context window, in tokens."""

_PROMPT_IDS = range(100, 30_000)
"""In every model's vocabulary, and past the control tokens that often stand first."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One request, or several at once: prompts of random tokens, continued greedily."""

    prompt_len: int
    max_tokens: int
    num_requests: int = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """What is read off a workload, in tokens per second."""

    name: str
    workload: Workload
    read: Callable[[Sequence[Completion]], float]


class Prompts:
    """Prompts of random token ids, never the same twice, so that no prompt cache has seen them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def next(self, length: int) -> list[int]:
        """A new prompt."""
        return self._random.choices(_PROMPT_IDS, k=length)

    def of(self, workload: Workload) -> list[list[int]]:
        """A new prompt for each request."""
        return [self.next(workload.prompt_len) for _ in range(workload.num_requests)]


def _prefill(answers: Sequence[Completion]) -> float:
    return sum(answer.prefill_tokens_per_s for answer in answers)


def _decode(answers: Sequence[Completion]) -> float:
    return sum(answer.decode_tokens_per_s for answer in answers)


WORKLOADS = SHORT, MEDIUM, LONG, BATCH = Workload(32, 128), Workload(512, 2), Workload(2000, 64), Workload(32, 128, 8)
FIGURES = (
    Figure("decode after 32 tokens", SHORT, _decode),
    Figure("decode after 2,000 tokens", LONG, _decode),
    Figure("prefill of 512 tokens", MEDIUM, _prefill),
    Figure("prefill of 2,000 tokens", LONG, _prefill),
    Figure("decode of 8 sequences, total", BATCH, _decode),
)
