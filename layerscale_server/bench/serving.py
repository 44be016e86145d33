"""What a served load amounts to: latencies, rates and goodput."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerscale_server.bench.errors import BenchmarkError
from layerscale_server.bench.openai_api import Answer
from layerscale_server.bench.statistics import Objectives, Percentiles


@dataclass(frozen=True, slots=True)
class ServingSummary:
    """A load and what came of it.

    Attributes:
        errors: how often each came.
        duration_s: from the first request's moment to the end of the last answer.
        latencies_s: TTFT, TPOT, ITL and E2E; ITL over the gaps of all answers, the others over answers.
        num_good: answers that met all objectives.
    """

    num_requests: int
    errors: Mapping[str, int]
    duration_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    latencies_s: Mapping[str, Percentiles]
    num_good: int

    @property
    def num_answers(self) -> int:
        """Requests that were answered."""
        return self.num_requests - sum(self.errors.values())

    @property
    def goodput(self) -> float:
        """Part of all requests that were answered and met all objectives."""
        return self.num_good / self.num_requests

    def per_second(self, count: int) -> float:
        """A count over the whole run."""
        return count / self.duration_s


def summarise(answers: Sequence[Answer], objectives: Objectives) -> ServingSummary:
    """Sum up a load.

    Raises:
        BenchmarkError: nothing was answered.
    """
    answered = [each for each in answers if each.error is None]
    errors = Counter(each.error for each in answers if each.error is not None)
    if not answered:
        raise BenchmarkError(f"no request was answered: {errors.most_common(1)[0][0]}")
    tpots = [each.tpot_s for each in answered if each.tpot_s is not None]
    samples = {
        "TTFT": [each.ttft_s for each in answered],
        "TPOT": tpots,
        "ITL": list(itertools.chain.from_iterable(each.gaps_s for each in answered)),
        "E2E": [each.e2e_s for each in answered],
    }
    begun = min(each.due_s for each in answers)
    return ServingSummary(
        num_requests=len(answers),
        errors=dict(errors),
        duration_s=max(each.due_s + each.e2e_s for each in answered) - begun,
        num_prompt_tokens=sum(each.num_prompt_tokens for each in answered),
        num_output_tokens=sum(each.num_output_tokens for each in answered),
        latencies_s={name: Percentiles.of(each) for name, each in samples.items() if each},
        num_good=sum(objectives.are_met(each.ttft_s, each.tpot_s, each.e2e_s) for each in answered),
    )
