"""The sampler against a plain implementation of the order it documents."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerscale_core.engine import SamplingParams
from layerscale_core.engine.sampler import Sampler, find_likeliest, pick, token_logprob
from layerscale_core.errors import NumericalError

GREEDY = SamplingParams(max_tokens=100)
SAMPLED = SamplingParams(max_tokens=100, temperature=1.0, seed=7)


def row(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def make_sampler(
    params: SamplingParams, prompt: tuple[int, ...] = (0,), stop_ids: frozenset[int] = frozenset()
) -> Sampler:
    return Sampler(params, prompt, params.max_tokens, stop_ids)


def sample(sampler: Sampler, logits: NDArray[np.float32]) -> int:
    return sampler.sample(lambda: logits, int(logits.argmax()))


def plain_distribution(logits: list[float], params: SamplingParams) -> dict[int, float] | None:
    """Steps 2 to 5 of the module's docstring, one after the other, on a dictionary; None where rounding decides."""
    peak = max(logits)
    weights = {token: math.exp((logit - peak) / params.temperature) for token, logit in enumerate(logits)}
    ranked = sorted(weights, key=lambda token: (-logits[token], token))
    if params.top_k:
        ranked = ranked[: params.top_k]
    total = math.fsum(weights[token] for token in ranked)
    kept, mass = [], 0.0
    for token in ranked:
        if params.top_p < 1 and abs(mass - params.top_p * total) < 1e-6 * total:
            return None
        if params.top_p < 1 and mass > params.top_p * total:
            break
        kept.append(token)
        mass += weights[token]
    kept = [token for token in kept if weights[token] >= params.min_p]
    total = math.fsum(weights[token] for token in kept)
    return {token: weights[token] / total for token in kept}


@given(
    logits=st.lists(st.integers(-12, 12).map(lambda number: number / 2), min_size=1, max_size=80),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 2.0, 50.0]),
    top_k=st.sampled_from([0, 1, 3, 10, 79, 200]),
    top_p=st.sampled_from([1e-6, 0.3, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.013, 0.3, 0.97, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_each_token_has_the_share_of_the_plain_distribution(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    params = SamplingParams(1, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    expected = plain_distribution(logits, params)
    assume(expected is not None)
    assert expected is not None
    num_points = 100
    points = [(number + 0.5) / num_points for number in range(num_points)]
    drawn = Counter(pick(row(*logits), int(np.argmax(logits)), params, point) for point in points)
    assert set(drawn) <= set(expected)
    for token, probability in expected.items():
        assert abs(drawn[token] - num_points * probability) < 1 + 1e-3


def test_drawn_frequencies_fit_the_distribution() -> None:
    logits = row(2, 1, 0, -1, -2, 1, 0.5, -8)
    sampler = make_sampler(SAMPLED)
    num_draws = 10_000
    drawn = Counter(sample(sampler, logits) for _ in range(num_draws))
    expected = plain_distribution(logits.tolist(), SAMPLED)
    assert expected is not None
    chi_square = sum((drawn[token] - num_draws * share) ** 2 / (num_draws * share) for token, share in expected.items())
    assert chi_square < 24.3  # exceeded by one correct sampler in a thousand, at 7 degrees of freedom


def test_temperature_zero_takes_the_likeliest_and_the_first_of_equals() -> None:
    assert sample(make_sampler(GREEDY), row(1, 3, 3, 2)) == 1


@pytest.mark.parametrize("temperature", [1e-45, 1e-6, 1e-5])
def test_a_tiny_temperature_is_greedy_and_does_not_overflow(temperature: float) -> None:
    params = dataclasses.replace(SAMPLED, temperature=temperature)
    assert {sample(make_sampler(params), row(-400, 3, 2.9, 400)) for _ in range(20)} == {3}


def test_a_huge_temperature_makes_all_tokens_equal() -> None:
    params = dataclasses.replace(SAMPLED, temperature=1e30)
    sampler = make_sampler(params)
    assert {sample(sampler, row(-100, 0, 100)) for _ in range(100)} == {0, 1, 2}


@pytest.mark.parametrize(
    "bounds", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}, {"top_k": 1, "top_p": 1e-9, "min_p": 1.0}]
)
def test_the_tightest_bound_leaves_the_likeliest(bounds: dict[str, float]) -> None:
    sampler = make_sampler(dataclasses.replace(SAMPLED, temperature=2.0, **bounds))  # type: ignore[arg-type]
    assert {sample(sampler, row(0, 0.5, 0.4)) for _ in range(50)} == {1}


@pytest.mark.parametrize("bounds", [{"top_k": 0}, {"top_k": 3}, {"top_k": 99}, {"top_p": 1.0}, {"min_p": 0.0}])
def test_the_loosest_bound_changes_nothing(bounds: dict[str, float]) -> None:
    free, bounded = make_sampler(SAMPLED), make_sampler(dataclasses.replace(SAMPLED, **bounds))  # type: ignore[arg-type]
    logits = row(0, 1, 0.5)
    assert [sample(free, logits) for _ in range(50)] == [sample(bounded, logits) for _ in range(50)]


@pytest.mark.parametrize("seed", [0, 7, -1, 2**64 + 7, 10**30])
def test_equal_seeds_give_equal_tokens(seed: int) -> None:
    params = dataclasses.replace(SAMPLED, seed=seed)
    logits = np.zeros(1000, np.float32)
    first, second = make_sampler(params), make_sampler(params)
    assert [sample(first, logits) for _ in range(20)] == [sample(second, logits) for _ in range(20)]


def test_different_seeds_and_no_seed_give_different_tokens() -> None:
    logits = np.zeros(1000, np.float32)
    answers = set()
    for seed in (1, 2, None, None):
        sampler = make_sampler(dataclasses.replace(SAMPLED, seed=seed))
        answers.add(tuple(sample(sampler, logits) for _ in range(20)))
    assert len(answers) == 4


def test_sampling_leaves_the_logits_alone() -> None:
    logits = row(1, 2, 3, 4)
    before = logits.copy()
    params = dataclasses.replace(
        SAMPLED,
        top_k=3,
        top_p=0.9,
        min_p=0.1,
        presence_penalty=1,
        repetition_penalty=2,
        logit_bias={1: 5},
        min_tokens=1,
    )
    sampler = make_sampler(params, stop_ids=frozenset({3}))
    for _ in range(3):
        sample(sampler, logits)
    assert np.array_equal(logits, before)


def greedy_tokens(
    logits: NDArray[np.float32], num_tokens: int, prompt: tuple[int, ...] = (0,), **changes: object
) -> list[int]:
    sampler = make_sampler(dataclasses.replace(GREEDY, **changes), prompt)  # type: ignore[arg-type]
    return [sample(sampler, logits) for _ in range(num_tokens)]


def test_presence_penalty_is_paid_once() -> None:
    # 1: 3.0, then 3.0 - 1.5 for good; 2: 2.0, then 0.5 for good.
    assert greedy_tokens(row(0, 3, 2), 4, presence_penalty=1.5) == [1, 2, 1, 1]


def test_frequency_penalty_is_paid_for_each_time() -> None:
    assert greedy_tokens(row(0, 3, 2.5), 5, frequency_penalty=1.0) == [1, 2, 1, 2, 1]


def test_negative_penalties_reward() -> None:
    sampler = make_sampler(dataclasses.replace(GREEDY, presence_penalty=-2.0))
    assert sample(sampler, row(0, 1, 0.5)) == 1
    assert sample(sampler, row(0, 1, 2.5)) == 1


def test_presence_and_frequency_penalties_ignore_the_prompt() -> None:
    assert greedy_tokens(row(0, 3, 2.9), 1, prompt=(1, 1, 1), presence_penalty=2.0, frequency_penalty=2.0) == [1]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_prompt_and_answer() -> None:
    assert greedy_tokens(row(-9, 4, 3), 2, prompt=(1,), repetition_penalty=2.0) == [2, 1]
    assert greedy_tokens(row(-9, -1, -1.5), 2, prompt=(1,), repetition_penalty=2.0) == [2, 1]
    assert greedy_tokens(row(-9, 1, 1.5), 2, prompt=(1,), repetition_penalty=0.5) == [1, 1]


def test_bias_comes_after_the_penalties() -> None:
    # Before the repetition penalty the bias would be divided too: (1 + 5) / 2 < 4.
    assert greedy_tokens(row(0, 1, 4), 1, prompt=(1,), repetition_penalty=2.0, logit_bias={1: 5.0}) == [1]


@pytest.mark.parametrize(("bias", "expected"), [(100.0, 0), (-100.0, 2), (0.0, 1)])
def test_bias_forces_and_bans(bias: float, expected: int) -> None:
    banned_or_forced = 0 if bias > 0 else 1
    assert greedy_tokens(row(-30, 9, 8), 1, logit_bias={banned_or_forced: bias}) == [expected]


@pytest.mark.parametrize("min_tokens", [0, 1, 3])
def test_stop_tokens_are_impossible_until_min_tokens(min_tokens: int) -> None:
    sampler = make_sampler(dataclasses.replace(GREEDY, min_tokens=min_tokens), stop_ids=frozenset({1, 2}))
    tokens = [sample(sampler, row(0, 9, 8, 1)) for _ in range(4)]
    assert tokens == [3] * min_tokens + [1] * (4 - min_tokens)


def test_no_token_left_is_this_request_s_error() -> None:
    sampler = make_sampler(dataclasses.replace(GREEDY, min_tokens=1), stop_ids=frozenset({0, 1}))
    with pytest.raises(NumericalError, match="no token"):
        sample(sampler, row(1, 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_rows_that_are_not_finite_are_found_and_only_they(bad: float, place: int) -> None:
    logits = np.array([[1, 5, 2, 3], [4, 5, 2, 9], [0, 0, 0, 0]], np.float32)
    logits[1, place] = bad
    assert find_likeliest(logits) == [1, None, 0]


def test_no_rows_have_no_likeliest() -> None:
    assert find_likeliest(np.empty((0, 4), np.float32)) == []


@pytest.mark.parametrize("num_top", [0, 1, 3, 5, 20])
def test_logprobs_are_of_the_unmodified_distribution_best_first(num_top: int) -> None:
    logits = row(1, 3, 3, -2, 0)
    exact = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    result = token_logprob(logits, 4, num_top)
    assert result.token_id == 4
    assert result.logprob == pytest.approx(exact[4], abs=1e-6)
    assert [token_id for token_id, _ in result.top] == [1, 2, 0, 4, 3][:num_top]
    assert [logprob for _, logprob in result.top] == pytest.approx([exact[index] for index, _ in result.top], abs=1e-6)
