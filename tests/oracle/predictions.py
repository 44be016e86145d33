"""What a model predicts along given texts, and how far two engines are apart on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

CORPUS = tuple(path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parent / "corpus").glob("*.txt")))
"""English prose, code and ChatML conversations; the last contain special tokens as text."""

NUM_TOP = 64
"""Likeliest tokens kept per position: so many that another engine's first choice is always among them."""

NUM_COMPARED = 340
"""Positions of a text that are compared, its last ones: llama.cpp takes a request of its own for each."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """The likeliest next tokens at each position, best first.

    Attributes:
        token_ids: int64 [num_positions, NUM_TOP].
        logprobs: float64 [num_positions, NUM_TOP].
    """

    token_ids: NDArray[np.int64]
    logprobs: NDArray[np.float64]

    @classmethod
    def from_logits(cls, logits: NDArray[np.float32]) -> Self:
        """Take the likeliest of logits [num_positions, vocab_size]."""
        likeliest = np.argpartition(-logits, NUM_TOP, axis=-1)[:, :NUM_TOP]
        order = np.argsort(-np.take_along_axis(logits, likeliest, axis=-1), axis=-1)
        token_ids = np.take_along_axis(likeliest, order, axis=-1)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_sums = np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64))
        return cls(token_ids, np.take_along_axis(shifted, token_ids, axis=-1) - log_sums)

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        """The positions of several texts, one after the other."""
        parts = list(parts)
        return cls(
            np.concatenate([part.token_ids for part in parts]), np.concatenate([part.logprobs for part in parts])
        )

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far an engine is from a reference.

    Attributes:
        mean_logprob_error: mean absolute difference of the log-probability of the reference's top token.
        top1_agreement: fraction of positions at which both have the same top token.
    """

    mean_logprob_error: float
    top1_agreement: float


def deviation(predictions: Predictions, reference: Predictions) -> Deviation:
    """Compare position by position.

    Raises:
        AssertionError: a top token of the reference is not among the likeliest: a different text or a broken engine.
    """
    assert len(predictions) == len(reference)
    is_top = predictions.token_ids == reference.token_ids[:, :1]
    assert is_top.any(axis=-1).all(), "a top token of the reference is not among the likeliest"
    errors = np.abs(predictions.logprobs[is_top] - reference.logprobs[:, 0])
    return Deviation(float(errors.mean()), float(is_top[:, 0].mean()))


def predict(logits_of: Callable[[Sequence[int]], NDArray[np.float32]], texts: Iterable[Sequence[int]]) -> Predictions:
    """Predictions at the compared positions, of an engine that gives the logits of every position of a text."""
    return Predictions.concatenate(Predictions.from_logits(logits_of(token_ids)[-NUM_COMPARED:]) for token_ids in texts)
