"""Prefill and decode rates of the engine in this process, at depths of context and sizes of the batch."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layerscale_core.engine import Request, SamplingParams
from layerscale_server.assembly import Assembly
from layerscale_server.bench.errors import BenchmarkError
from layerscale_server.bench.recording import Recording, record_all

PREFILL, DECODE = "prefill", "decode"

_LEEWAY_TOKENS = 64
"""Context beside what is measured: the ends of pages."""


@dataclass(frozen=True, slots=True)
class RateSample:
    """One measurement.

    Attributes:
        what: ``prefill`` or ``decode``.
        request_len: tokens of each prompt after its context, or of each answer.
        depth: tokens of each sequence's context that were computed before.
        num_tokens: of all sequences together, in ``seconds``.
    """

    what: str
    request_len: int
    depth: int
    batch_size: int
    num_tokens: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Of all sequences together."""
        return self.num_tokens / self.seconds


@dataclass(frozen=True, slots=True)
class RatePlan:
    """What is measured: every depth with every batch size, so many times."""

    depths: Sequence[int]
    batch_sizes: Sequence[int]
    prompt_lens: Sequence[int]
    output_len: int
    repetitions: int

    @property
    def context_len(self) -> int:
        """Tokens of a context in which all this can be measured."""
        return max(self.depths) + max(*self.prompt_lens, self.output_len) + _LEEWAY_TOKENS


class RateMeter:
    """Measures a loaded model. Prompts are random tokens, never the same twice."""

    def __init__(self, assembly: Assembly, seed: int) -> None:
        self._engine = assembly.engine
        self._page_size = assembly.model.plan.layout.page_size
        self._vocabulary = range(assembly.model.spec.vocab_size)
        self._random = random.Random(seed)  # noqa: S311 (prompts, repeatable)
        self._numbers = itertools.count()

    def prefill(self, depth: int, batch_size: int, prompt_len: int) -> RateSample:
        """Compute prompts of this length after ``depth`` tokens: tokens computed ÷ time to the last first token."""
        started, recordings = self._run(depth, batch_size, prompt_len, max_tokens=1)
        num_tokens = sum(each.num_computed for each in recordings)
        seconds = max(each.first for each in recordings) - started
        return RateSample(PREFILL, prompt_len, depth, batch_size, num_tokens, seconds)

    def decode(self, depth: int, batch_size: int, output_len: int) -> RateSample:
        """Generate after ``depth`` tokens: what came when all sequences had begun ÷ the time that it took.

        They begin in one step, and so end in one, unless the ends of their prompts' pages fill more than that.
        """
        _, recordings = self._run(depth, batch_size, prompt_len=1, max_tokens=output_len)
        begun, ended = max(each.first for each in recordings), max(each.last for each in recordings)
        num_tokens = sum(each.num_after(begun) for each in recordings)
        return RateSample(DECODE, output_len, depth, batch_size, num_tokens, ended - begun)

    def _run(self, depth: int, batch_size: int, prompt_len: int, max_tokens: int) -> tuple[float, Sequence[Recording]]:
        """Bring sequences to their depth, then submit them at once; returns when that was, and what came."""
        contexts = [self._tokens(depth) for _ in range(batch_size)]
        if depth:
            self._complete(contexts, max_tokens=1)
        prompts = [context + self._tokens(prompt_len) for context in contexts]
        started = time.perf_counter()
        recordings = self._complete(prompts, max_tokens)
        for each in recordings:
            if each.usage.cached_tokens < depth - self._page_size:
                raise BenchmarkError(f"the KV pool kept {each.usage.cached_tokens} of {depth} computed tokens")
        return started, recordings

    def _complete(self, prompts: Sequence[list[int]], max_tokens: int) -> Sequence[Recording]:
        """Continue all prompts, in the same steps from the first."""
        sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        requests = [Request(f"bench-{next(self._numbers)}", tuple(prompt), sampling) for prompt in prompts]
        return record_all(self._engine, requests)

    def _tokens(self, count: int) -> list[int]:
        return self._random.choices(self._vocabulary, k=count)


def measure_rates(meter: RateMeter, plan: RatePlan) -> Iterator[RateSample]:
    """Everything, in turn, after one run that is not counted."""
    meter.decode(0, 1, plan.output_len)
    for _ in range(plan.repetitions):
        for depth, batch_size in itertools.product(plan.depths, plan.batch_sizes):
            for prompt_len in plan.prompt_lens:
                yield meter.prefill(depth, batch_size, prompt_len)
            yield meter.decode(depth, batch_size, plan.output_len)
