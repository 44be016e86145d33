"""A load of requests, and what it amounts to."""

from __future__ import annotations

import itertools
import statistics
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscale_server.bench.errors import BenchmarkError
from layerscale_server.bench.load import Load, arrivals, send_all
from layerscale_server.bench.openai_api import Answer
from layerscale_server.bench.serving import summarise
from layerscale_server.bench.statistics import Objectives

ANSWERS = [
    Answer(due_s=1.0, sent_s=0.0, piece_times_s=(0.1, 0.2, 0.4), num_prompt_tokens=10, num_output_tokens=4),
    Answer(due_s=2.0, sent_s=0.0, piece_times_s=(0.5,), num_prompt_tokens=20, num_output_tokens=1),
    Answer(due_s=0.5, sent_s=0.0, error="the server answered 500"),
]


def test_a_load_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    load = Load(20, 4.0, 100, 10, 0.5, seed=3)
    assert arrivals(load) == arrivals(load)
    assert arrivals(load) != arrivals(Load(20, 4.0, 100, 10, 0.5, seed=4))


def test_gaps_between_arrivals_are_exponential() -> None:
    due = [each.due_s for each in arrivals(Load(20_000, 4.0, 1, 1, 0.0, seed=0))]
    gaps = [after - before for before, after in itertools.pairwise(due)]
    assert statistics.mean(gaps) == pytest.approx(0.25, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.25, rel=0.05)


@given(st.integers(1, 2000), st.floats(0, 1), st.integers(0, 9))
def test_lengths_stay_within_their_spread(mean: int, spread: float, seed: int) -> None:
    for each in arrivals(Load(10, 1.0, mean, 5, spread, seed)):
        assert max(1, mean * (1 - spread) - 1) <= each.prompt_len <= mean * (1 + spread) + 1


def test_requests_do_not_wait_for_those_before() -> None:
    last_has_begun = threading.Event()

    def wait(due_s: float, _due: float) -> float:
        assert last_has_begun.wait(30)
        return due_s

    def begin(due_s: float, _due: float) -> float:
        last_has_begun.set()
        return due_s

    assert send_all([(0.0, wait), (0.001, wait), (0.002, begin)]) == [0.0, 0.001, 0.002]


def test_a_load_is_summed_up() -> None:
    summary = summarise(ANSWERS, Objectives())
    assert (summary.num_requests, summary.num_answers) == (3, 2)
    assert summary.errors == {"the server answered 500": 1}
    assert (summary.num_prompt_tokens, summary.num_output_tokens) == (30, 5)
    assert summary.duration_s == pytest.approx(2.5 - 0.5)
    assert summary.per_second(summary.num_output_tokens) == pytest.approx(2.5)
    assert summary.latencies_s["TTFT"].p50 == pytest.approx(0.3)
    assert summary.latencies_s["TPOT"].p99 == pytest.approx(0.1)
    assert summary.latencies_s["ITL"].p50 == pytest.approx(0.15)
    assert summary.latencies_s["E2E"].p50 == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("objectives", "num_good"),
    [(Objectives(), 2), (Objectives(ttft_s=0.1), 1), (Objectives(tpot_s=0.09), 1), (Objectives(ttft_s=0.01), 0)],
)
def test_goodput_counts_what_failed_as_not_good(objectives: Objectives, num_good: int) -> None:
    summary = summarise(ANSWERS, objectives)
    assert summary.num_good == num_good
    assert summary.goodput == pytest.approx(num_good / 3)


def test_no_answer_at_all_is_an_error_that_says_why() -> None:
    with pytest.raises(BenchmarkError, match="the server answered 500"):
        summarise(ANSWERS[2:], Objectives())
