"""Samples in a few numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscale_server.bench.statistics import Objectives, Percentiles, Spread

_SECONDS = st.floats(min_value=0, max_value=1e6)


def test_percentiles_are_interpolated_between_samples() -> None:
    assert Percentiles.of([float(value) for value in range(101)]) == Percentiles(50.0, 90.0, 99.0)
    assert Percentiles.of([2.0, 1.0]) == Percentiles(1.5, 1.9, 1.99)
    assert Percentiles.of([7.0]) == Percentiles(7.0, 7.0, 7.0)


@given(st.lists(_SECONDS, min_size=1))
def test_percentiles_ascend_within_the_samples(samples: list[float]) -> None:
    found = Percentiles.of(samples)
    assert min(samples) <= found.p50 <= found.p90 <= found.p99 <= max(samples)


def test_a_spread_keeps_its_samples() -> None:
    spread = Spread.of([3.0, 1.0, 2.0])
    assert (spread.median, spread.samples) == (2.0, (3.0, 1.0, 2.0))
    assert spread.p20 < spread.median < spread.p80


@pytest.mark.parametrize(
    ("objectives", "are_met"),
    [
        (Objectives(), True),
        (Objectives(ttft_s=0.5, tpot_s=0.05, e2e_s=2.0), True),
        (Objectives(ttft_s=0.4), False),
        (Objectives(tpot_s=0.04), False),
        (Objectives(e2e_s=1.9), False),
        (Objectives(ttft_s=9.0, tpot_s=0.04, e2e_s=9.0), False),
    ],
)
def test_all_objectives_must_be_met_to_the_limit(objectives: Objectives, are_met: bool) -> None:
    assert objectives.are_met(0.5, 0.05, 2.0) is are_met


def test_a_single_token_breaks_no_objective_for_the_others() -> None:
    assert Objectives(tpot_s=0.001).are_met(0.5, None, 0.5)
