"""Prompts of the kit in which no expert is chosen by a hair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import RandomWeights, tiny_spec
from layerscale_core.conformance.clear_prompts import clear_prompt
from layerscale_core.conformance.executors import kv_layout, logits_in_chunks, random_tokens
from layerscale_core.forward import KernelExecutor
from layerscale_core.models import MoeSpec
from layerscale_core.reference import ReferenceKernels
from layerscale_core.reference.arrays import Floats
from layerscale_core.specs import ExpertWeights

SPEC = tiny_spec(num_experts=4, num_active=2)


class KeepsScores(ReferenceKernels):
    scores: list[Floats]

    def mixture(self, x: Floats, router: Floats, experts: Sequence[ExpertWeights], spec: MoeSpec) -> Floats:
        self.scores.append(np.sort(self.linear(x, router), axis=-1))
        return super().mixture(x, router, experts, spec)


def margins(prompt: list[int]) -> Floats:
    """[layers, tokens], of a prompt in one step."""
    kernels, kv = KeepsScores(CountingAllocator(2**40, "the test's memory")), kv_layout(SPEC, 16)
    kernels.scores = []
    logits_in_chunks(KernelExecutor(kernels, SPEC, RandomWeights(SPEC), kv), kv, [prompt])
    scores = np.stack(kernels.scores)
    return scores[..., 2] - scores[..., 1]


def test_every_token_gets_its_experts_by_the_margin_in_every_layer() -> None:
    found = margins(clear_prompt(SPEC, 20, min_margin=0.2))
    assert found.shape == (2, 20)
    assert found.min() > 0.2 - 1e-4  # a step of many tokens rounds otherwise
    assert margins(random_tokens(SPEC, 20)).min() < 0.1


def test_a_margin_that_no_token_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="no token gets its experts by 100 behind 0 that do"):
        clear_prompt(SPEC, 20, min_margin=100)
