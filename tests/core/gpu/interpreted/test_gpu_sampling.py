"""Picking tokens on the device."""

from __future__ import annotations

import numpy as np
import torch

from layerscale_core.gpu.sampling import argmax, sample
from tests.support.gpu_layers import make_workspace


def picked(logits: torch.Tensor, *draw: torch.Tensor) -> tuple[list[int], list[int]]:
    """Tokens, and whether their rows are finite."""
    workspace = make_workspace()
    pick = sample if draw else argmax
    found = pick(logits, *draw, torch.full((len(logits), 2), -1, dtype=torch.int32), workspace)
    assert not workspace.counters.any()
    token_ids, are_finite = found.T.tolist()
    return token_ids, are_finite


def test_the_first_of_the_largest_logits_wins_and_what_is_not_finite_is_found() -> None:
    logits = torch.randn(5, 9000)
    logits[0, [8999, 4097, 4099]] = 9
    logits[1, 17] = torch.inf
    logits[2, 8999] = torch.nan
    logits[4, 5000] = -torch.inf
    with np.errstate(invalid="ignore"):
        token_ids, are_finite = picked(logits)
    assert [token_ids[0], token_ids[3]] == [4097, int(logits[3].argmax())]
    assert are_finite == [1, 0, 0, 1, 0]


def test_draws_follow_the_softmax_and_repeat_with_their_seed() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    logits, temperatures = (4 * probabilities.log()).repeat(128, 1), torch.full((128,), 4.0)
    token_ids, _ = picked(logits, temperatures, torch.arange(128))
    # Four standard deviations of a share of 128 draws; without the temperature the first would have 87 %.
    np.testing.assert_allclose(np.bincount(token_ids) / 128, probabilities, atol=0.18)
    assert picked(logits[:9], temperatures[:9], torch.arange(9))[0] == token_ids[:9]


def test_temperature_zero_takes_the_largest() -> None:
    logits = torch.randn(3, 50)
    token_ids, are_finite = picked(logits, torch.tensor([0.0, 5.0, 0.0]), torch.arange(3))
    assert token_ids[::2] == logits.argmax(dim=1)[::2].tolist()
    assert are_finite == [1, 1, 1]
