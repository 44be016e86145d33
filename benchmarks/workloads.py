"""What is asked of the engines, and what is read off the answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from llama_cpp_peer import Completion

CONTEXT_LEN = 4096
"""Both engines' context window, in tokens."""

_PROMPT_IDS = range(100, 30_000)
"""In every model's vocabulary, and past the control tokens that often stand first."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One request: a prompt of random tokens, continued greedily."""

    prompt_len: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Figure:
    """What is read off a workload, in tokens per second."""

    name: str
    workload: Workload
    read: Callable[[Completion], float]


class Prompts:
    """Prompts of random token ids, never the same twice, so that no prompt cache has seen them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def next(self, length: int) -> list[int]:
        """A new prompt."""
        return self._random.choices(_PROMPT_IDS, k=length)


def _prefill(completion: Completion) -> float:
    return completion.prefill_tokens_per_s


def _decode(completion: Completion) -> float:
    return completion.decode_tokens_per_s


WORKLOADS = SHORT, MEDIUM, LONG = Workload(32, 128), Workload(512, 2), Workload(2000, 64)
FIGURES = (
    Figure("decode after 32 tokens", SHORT, _decode),
    Figure("decode after 2,000 tokens", LONG, _decode),
    Figure("prefill of 512 tokens", MEDIUM, _prefill),
    Figure("prefill of 2,000 tokens", LONG, _prefill),
)
