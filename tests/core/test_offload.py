"""Which layers stay in host memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscale_core.offload import FirstLayersPlanner, layer_ranges


@pytest.mark.parametrize(
    ("budget_bytes", "host_layers"),
    [
        (0, ()),
        (1, (0,)),
        (100, (0,)),
        (101, (0, 1)),
        (400, (0, 1, 2, 3)),
        (800, tuple(range(8))),
        (10**12, tuple(range(8))),
    ],
)
def test_budget_becomes_whole_layers_rounded_up(budget_bytes: int, host_layers: tuple[int, ...]) -> None:
    assert FirstLayersPlanner().plan([100] * 8, budget_bytes).host_layers == host_layers


def test_a_model_without_layers_has_none_to_move() -> None:
    assert FirstLayersPlanner().plan([], 100).host_layers == ()


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=200), st.integers(0, 10**12))
def test_layers_are_named_once_and_cover_the_budget(layer_bytes: list[int], budget_bytes: int) -> None:
    host_layers = FirstLayersPlanner().plan(layer_bytes, budget_bytes).host_layers
    assert sorted(set(host_layers)) == list(host_layers)
    assert set(host_layers) <= set(range(len(layer_bytes)))
    mean_bytes = sum(layer_bytes) / len(layer_bytes)
    assert len(host_layers) >= min(len(layer_bytes), budget_bytes / mean_bytes * (1 - 1e-12))
    assert len(host_layers) < budget_bytes / mean_bytes * (1 + 1e-12) + 1


@pytest.mark.parametrize(
    ("layers", "text"), [((), ""), ((3,), "3"), ((0, 1), "0-1"), ((0, 1, 2, 5, 7, 8), "0-2, 5, 7-8")], ids=str
)
def test_layers_are_written_as_ranges(layers: tuple[int, ...], text: str) -> None:
    assert layer_ranges(layers) == text
