"""Prompts whose tokens get no expert by a hair, for backends whose products are rounded to 16 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance.executors import kv_layout
from layerscale_core.conformance.random_model import RandomWeights
from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.forward import KernelExecutor
from layerscale_core.models import ModelSpec, MoeSpec
from layerscale_core.reference import ReferenceKernels
from layerscale_core.reference.arrays import Floats
from layerscale_core.specs.kernels import ExpertWeights


def clear_prompt(spec: ModelSpec, num_tokens: int, min_margin: float) -> list[int]:
    """A random prompt for the model with ``RandomWeights``, each token drawn until its experts are clear.

    Args:
        min_margin: in every layer, from the score of the last expert that a token gets to that of the next.

    Raises:
        ValueError: no token of the vocabulary is as clear as that behind those before it.
    """
    kernels = _MarginKernels(CountingAllocator(2**40, "the reference's memory"))
    kv = kv_layout(spec, page_size=16)
    executor = KernelExecutor(kernels, spec, RandomWeights(spec), kv)
    book, random = PageBook(kv), np.random.default_rng(0)
    sequence, prompt = book.sequence(), list[int]()
    while len(prompt) < num_tokens:
        batch = book.batch([Span(sequence, [0])])
        for token_id in random.permutation(spec.vocab_size).tolist():
            kernels.least_margin = math.inf
            executor.step(replace(batch, token_ids=np.array([token_id], np.int32)))  # over the last one's keys
            if kernels.least_margin >= min_margin:
                prompt.append(token_id)
                break
        else:
            raise ValueError(f"no token gets its experts by {min_margin} behind {len(prompt)} that do")
    executor.close()
    return prompt


class _MarginKernels(ReferenceKernels):
    """Keeps the least margin by which experts were chosen."""

    least_margin = math.inf

    def mixture(self, x: Floats, router: Floats, experts: Sequence[ExpertWeights], spec: MoeSpec) -> Floats:
        scores = -np.sort(-self.linear(x, router), axis=-1)
        if spec.num_active < spec.num_experts:
            margins = scores[:, spec.num_active - 1] - scores[:, spec.num_active]
            self.least_margin = min(self.least_margin, float(margins.min()))
        return super().mixture(x, router, experts, spec)
