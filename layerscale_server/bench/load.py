"""Requests that come at random moments, whatever has become of those before: an open load."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Load:
    """What comes.

    Attributes:
        rate_per_s: mean of a Poisson process: the gaps between arrivals are exponentially distributed.
        prompt_len, output_len: mean tokens of prompts and answers.
        length_spread: lengths are uniform within this part of the mean to both sides.
    """

    num_requests: int
    rate_per_s: float
    prompt_len: int
    output_len: int
    length_spread: float
    seed: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: seconds after the beginning at which it is due, and its wanted lengths in tokens."""

    due_s: float
    prompt_len: int
    output_len: int


def arrivals(load: Load) -> list[Arrival]:
    """The requests of a load, the earliest first; the same for the same seed."""
    rng = random.Random(load.seed)  # noqa: S311 (a load, repeatable)

    def length(mean: int) -> int:
        return max(1, round(mean * rng.uniform(1 - load.length_spread, 1 + load.length_spread)))

    found, due_s = [], 0.0
    for _ in range(load.num_requests):
        due_s += rng.expovariate(load.rate_per_s)
        found.append(Arrival(due_s, length(load.prompt_len), length(load.output_len)))
    return found


def send_all(requests: Sequence[tuple[float, Callable[[float, float], _Result]]]) -> list[_Result]:
    """Call each at its moment, on a thread of its own.

    Args:
        requests: seconds after the beginning, ascending, and what is then called with them and with the same moment by
            ``time.perf_counter``.

    Returns:
        What they returned, in the same order, when the last is done.
    """
    with ThreadPoolExecutor(len(requests)) as pool:
        started = time.perf_counter()
        pending = []
        for due_s, call in requests:
            due = started + due_s
            time.sleep(max(0.0, due - time.perf_counter()))
            pending.append(pool.submit(call, due_s, due))
        return [each.result() for each in pending]
