"""Kernels under test beside the reference: the same operation on the same numbers, and how far the results differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from layerscale_core.conformance.executors import reference_kernels
from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.reference import ReferenceKernels
from layerscale_core.specs import Array, Kernels, KVLayout, StepBatch

Floats = NDArray[np.float32]

MANY_TOKENS = (1, 2, 3, 8, 9, 17)
"""Rows of a product: alone, below, at and beyond the tiles of usual kernels."""


@dataclass(frozen=True, slots=True)
class SideBySide:
    """The kernels under test and the reference.

    Attributes:
        max_relative_error: root mean square of a result's deviation, in units of the truth's.
    """

    kernels: Kernels
    max_relative_error: float
    reference: ReferenceKernels = field(default_factory=reference_kernels)

    def random(self, *shape: int, seed: int = 0, deviation: float = 1.0) -> Floats:
        """Numbers that the kernels can hold: what comes back when they are taken to the device."""
        numbers = np.random.default_rng(seed).normal(0, deviation, shape).astype(np.float32)
        return np.array(self.kernels.to_host(self.kernels.from_host(numbers)), np.float32)

    def run(self, compute: Callable[[Kernels], Array]) -> Floats:
        """An operation's result by the kernels under test, on the host."""
        return np.array(self.kernels.to_host(compute(self.kernels)))

    def compare(self, compute: Callable[[Kernels], Array], further_error: float = 0.0) -> Floats:
        """Compute with both and compare; returns the result of the kernels under test.

        Args:
            compute: brings its inputs to the device by ``take``, because an operation may reuse their memory.
            further_error: allowed beside the usual.
        """
        truth = self.reference.to_host(compute(self.reference))
        actual = self.run(compute)
        assert actual.shape == truth.shape
        assert actual.dtype == np.float32
        deviation = np.sqrt(np.square(actual - truth).mean() / np.square(truth).mean())
        assert deviation <= self.max_relative_error + further_error
        return actual


def matrix_batch(num_tokens: int, *, seed: int = 0, vocab_size: int = 97, first_position: int = 0) -> StepBatch:
    """One sequence's first tokens, for operations that look at tokens and positions alone."""
    book = PageBook(KVLayout(num_pages=num_tokens, page_size=1, num_layers=1, num_kv_heads=1, head_dim=16))
    sequence = book.sequence()
    sequence.next_position = first_position
    tokens = np.random.default_rng(seed).integers(0, vocab_size, num_tokens).tolist()
    return book.batch([Span(sequence, tokens)])


def take(kernels: Kernels, x: Floats) -> Array:
    """Activations on the device, for one use."""
    return kernels.from_host(x.copy())
