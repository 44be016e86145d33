"""Picking tokens on the device."""

from __future__ import annotations

import numpy as np
import torch

from layerscale_core.gpu.sampling import argmax, sample


def ids_and_flags(num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((num_rows,), -1, dtype=torch.int32), torch.full((num_rows,), -1, dtype=torch.int32)


def test_the_first_of_the_largest_logits_wins_and_what_is_not_finite_is_found() -> None:
    logits = torch.randn(4, 5000)
    logits[0, [4099, 4097, 4990]] = 9
    logits[1, 17] = torch.inf
    logits[2, 4999] = torch.nan
    token_ids, are_finite = ids_and_flags(4)
    with np.errstate(invalid="ignore"):
        argmax(logits, token_ids, are_finite)
    assert token_ids[[0, 3]].tolist() == [4097, int(logits[3].argmax())]
    assert are_finite.tolist() == [1, 0, 0, 1]


def test_draws_follow_the_softmax_and_repeat_with_their_seed() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    logits, temperatures = (4 * probabilities.log()).repeat(128, 1), torch.full((128,), 4.0)
    token_ids, are_finite = ids_and_flags(128)
    sample(logits, temperatures, torch.arange(128), token_ids, are_finite)
    # Four standard deviations of a share of 128 draws; without the temperature the first would have 87 %.
    np.testing.assert_allclose(torch.bincount(token_ids.long()) / 128, probabilities, atol=0.18)
    again = ids_and_flags(9)[0]
    sample(logits[:9], temperatures[:9], torch.arange(9), again, are_finite)
    assert torch.equal(again, token_ids[:9])


def test_temperature_zero_takes_the_largest() -> None:
    logits = torch.randn(3, 50)
    token_ids, are_finite = ids_and_flags(3)
    sample(logits, torch.tensor([0.0, 5.0, 0.0]), torch.arange(3), token_ids, are_finite)
    assert token_ids[[0, 2]].tolist() == logits.argmax(dim=1)[[0, 2]].tolist()
    assert are_finite.tolist() == [1, 1, 1]
