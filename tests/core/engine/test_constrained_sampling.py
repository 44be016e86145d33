"""The sampler under a constraint, against ruling tokens out in the row itself."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection
from typing import cast

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerscale_core.constraints import Matcher
from layerscale_core.engine import SamplingParams
from layerscale_core.engine.sampler import Sampler

SAMPLED = SamplingParams(100_000, temperature=0.8, seed=3)


class AlwaysAllowing:
    """A constraint that allows the same tokens everywhere."""

    is_finished = False

    def __init__(self, token_ids: Collection[int]) -> None:
        self._token_ids = token_ids
        self.accepted: list[int] = []

    def allowed(self, vocab_size: int) -> NDArray[np.bool_]:
        mask = np.zeros(vocab_size, np.bool_)
        mask[list(self._token_ids)] = True
        return mask

    def try_accept(self, token_id: int) -> bool:
        if token_id not in self._token_ids:
            return False
        self.accepted.append(token_id)
        return True

    def accept(self, token_id: int) -> None:
        assert self.try_accept(token_id), "the sampler chose what is not allowed"

    def forced_tokens(self) -> list[int]:
        return []


def sample(
    params: SamplingParams, logits: NDArray[np.float32], allowed: Collection[int] | None, count: int
) -> list[int]:
    constraint = None if allowed is None else AlwaysAllowing(allowed)
    sampler = Sampler(params, (0,), params.max_tokens, (), cast("Matcher | None", constraint))
    likeliest = int(logits.argmax())
    tokens = [token_id for _ in range(count) for token_id in sampler.next_tokens(lambda: logits, likeliest)]
    assert constraint is None or constraint.accepted == tokens
    return tokens


@st.composite
def rows(draw: st.DrawFn) -> tuple[NDArray[np.float32], list[int]]:
    """Logits, with ties and without, and the tokens that are allowed: from one to all."""
    size = draw(st.integers(1, 600))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = random.standard_normal(size).astype(np.float32) * np.float32(draw(st.sampled_from([0.5, 4])))
    if draw(st.booleans()):
        logits = np.round(logits)
    num_allowed = draw(st.integers(1, size) | st.integers(1, max(1, size // 8)))
    return logits, random.choice(size, num_allowed, replace=False).tolist()


@given(
    rows(),
    st.sampled_from(
        [
            {"temperature": 0.0},
            {"top_k": 5},
            {"top_p": 0.8},
            {"min_p": 0.2},
            {"top_k": 40, "top_p": 0.95, "min_p": 0.01, "temperature": 1.5},
            {"top_p": 0.9, "logit_bias": {0: 3.0}, "presence_penalty": 1.0},
            {"temperature": 0.0, "frequency_penalty": 0.7},
        ]
    ),
)
@settings(max_examples=150, deadline=None)
def test_cut_and_greedy_choices_are_those_of_a_row_without_the_other_tokens(
    row: tuple[NDArray[np.float32], list[int]], changes: dict[str, object]
) -> None:
    logits, allowed = row
    params = dataclasses.replace(SAMPLED, **changes)  # type: ignore[arg-type]
    assume(not params.top_k or params.top_k < len(allowed))  # a top-k that cuts nothing draws in the order of ids
    others = np.setdiff1d(np.arange(logits.size), allowed)
    without = logits.copy()
    without[others] = -np.inf
    assert sample(params, logits, allowed, 8) == sample(params, without, None, 8)


@pytest.mark.parametrize("top_k", [0, 6])
@pytest.mark.parametrize(
    ("logits", "allowed"),
    [
        (np.array([2, 1, 0, -1, -2, 1, 0.5, -8], np.float32), [1, 2, 3, 5, 7]),  # the likeliest is not among them
        (np.linspace(1, -1, 80, dtype=np.float32), [3, 4, 40, 79]),  # few
        (np.zeros(6, np.float32), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_each_allowed_token_has_the_share_that_it_has_among_them(
    logits: NDArray[np.float32], allowed: list[int], top_k: int
) -> None:
    num_draws = 8000
    drawn = Counter(sample(dataclasses.replace(SAMPLED, top_k=top_k), logits, allowed, num_draws))
    weights = {token_id: math.exp(float(logits[token_id]) / SAMPLED.temperature) for token_id in allowed}
    expected = {token_id: num_draws * weight / sum(weights.values()) for token_id, weight in weights.items()}
    chi_square = sum((drawn[token_id] - count) ** 2 / count for token_id, count in expected.items())
    assert chi_square < 20.5  # exceeded by one correct sampler in a thousand, at 5 degrees of freedom


@pytest.mark.parametrize("allowed", [[2], [2, 5], [0, 1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("changes", [{}, {"temperature": 0.0}, {"top_k": 3}])
def test_the_model_decides_where_parameters_rule_out_all_that_is_allowed(
    allowed: list[int], changes: dict[str, object]
) -> None:
    params = dataclasses.replace(SAMPLED, **changes)  # type: ignore[arg-type]
    logits = np.array([-90, -90, 1, -90, -90, -90, -90, 50], np.float32)
    constraint = cast("Matcher", AlwaysAllowing(allowed))
    sampler = Sampler(dataclasses.replace(params, min_tokens=9), (0,), 100, set(allowed), constraint)
    assert sampler.next_tokens(lambda: logits, 7) == [2]
