"""Selections over the vocabulary equal their plain definitions, whatever the values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerscale_core.engine.vocabulary import draw, largest, log_sum_exp, nucleus

# Few distinct values make ties; sizes pass the group (64) and block (256) sizes that the shortcuts use.
tied_values = st.lists(st.integers(-4, 4), min_size=1, max_size=400).map(lambda values: np.array(values, np.float32))
spread_values = st.tuples(st.integers(1, 3000), st.floats(0.1, 10), st.integers(0, 2**32 - 1)).map(
    lambda args: (np.random.default_rng(args[2]).standard_normal(args[0]) * args[1]).astype(np.float32)
)
any_values = tied_values | spread_values


def in_rank_order(values: NDArray[np.float32]) -> list[int]:
    return sorted(range(values.size), key=lambda index: (-values[index], index))


def as_weights(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.exp(values - values.max())


@given(any_values, st.integers(1, 500))
@settings(max_examples=200, deadline=None)
def test_largest_ranks_by_value_then_by_id(values: NDArray[np.float32], count: int) -> None:
    assert largest(values, count).tolist() == in_rank_order(values)[:count]


def test_largest_finds_them_where_all_lie_in_one_group() -> None:
    values = np.zeros(64 * 100, np.float32)
    group = np.arange(64) * 100  # the members of the first group
    values[group] = np.arange(1, 65)
    assert largest(values, 64).tolist() == group[::-1].tolist()


@given(any_values, st.floats(0.01, 0.999))
@settings(max_examples=200, deadline=None)
def test_nucleus_is_the_shortest_ranked_prefix_with_the_mass(values: NDArray[np.float32], top_p: float) -> None:
    weights = as_weights(values)
    kept = nucleus(weights, top_p).tolist()
    assert kept == in_rank_order(weights)[: len(kept)]
    needed = top_p * math.fsum(weights.tolist())
    masses = [math.fsum(weights[kept[:size]].tolist()) for size in (len(kept) - 1, len(kept))]
    tolerance = 1e-9 * needed  # of summing in another order
    assert masses[0] < needed + tolerance
    assert masses[1] >= needed - tolerance


@pytest.mark.parametrize("spread", [0.0, 1e-3, 30.0])
def test_nucleus_of_nearly_everything_is_nearly_everything(spread: float) -> None:
    weights = as_weights(np.linspace(0, -spread, 1000, dtype=np.float32))
    kept = nucleus(weights, 1 - 1e-9)
    assert kept.tolist() == list(range(kept.size))
    assert weights[kept.size :].sum() <= 1e-6 * weights.sum()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=600).filter(any))
@settings(max_examples=100, deadline=None)
def test_draw_gives_each_index_its_share(counts: list[int]) -> None:
    total = sum(counts)
    weights = np.array(counts, np.float32)
    drawn = [draw(weights, (ticket + 0.5) / total) for ticket in range(total)]
    assert drawn == [index for index, count in enumerate(counts) for _ in range(count)]


@given(spread_values, st.floats(0, 1, exclude_max=True) | st.just(math.nextafter(1, 0)) | st.just(0.0))
@settings(max_examples=200, deadline=None)
def test_draw_never_gives_what_has_no_weight(values: NDArray[np.float32], point: float) -> None:
    weights = np.where(values > np.median(values), as_weights(values), np.float32(0))
    weights[int(values.argmax())] = 1
    assert weights[draw(weights, point)] > 0


@given(any_values)
@settings(max_examples=100, deadline=None)
def test_log_sum_exp_agrees_with_double_precision(values: NDArray[np.float32]) -> None:
    peak = max(values.tolist())
    exact = peak + math.log(math.fsum(math.exp(value - peak) for value in values.tolist()))
    assert log_sum_exp(values) == pytest.approx(exact, abs=2e-6)
