"""How far executors are from one another on the texts of the oracle tests: what every measure of a precision shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layerscale_core.conformance import PageBook, Span
from layerscale_core.models import ModelSpec
from layerscale_core.specs import Executor, KVLayout, KVType, Tokenizer

CORPUS = Path(__file__).parents[1] / "tests" / "oracle" / "corpus"
CHUNK_LEN = 128
"""Prompt tokens per step; with logits for each, so it bounds memory."""
PAGE_SIZE = 16

Logprobs = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cost:
    """How far a precision is from the reference over all positions.

    Attributes:
        mean_kl: Kullback-Leibler divergence of the next token's distribution from the reference's, in nats.
        p99_kl: its 99th percentile.
        top1_agreement: share of positions with the same likeliest token.
        perplexity_change: of the texts, relative.
    """

    num_positions: int
    mean_kl: float
    p99_kl: float
    top1_agreement: float
    perplexity_change: float


def read_texts(tokenizer: Tokenizer) -> list[list[int]]:
    """The corpus in tokens."""
    paths = sorted(CORPUS.glob("*.txt"))
    return [tokenizer.encode(path.read_text(encoding="utf-8"), parse_special=True) for path in paths]


def layout_for(spec: ModelSpec, texts: Sequence[Sequence[int]], kv_type: KVType = KVType.FP16) -> KVLayout:
    """A cache for the longest of the texts."""
    attention = spec.layers[0].attention
    num_pages = -(-max(map(len, texts)) // PAGE_SIZE)
    return KVLayout(num_pages, PAGE_SIZE, len(spec.layers), attention.num_kv_heads, attention.head_dim, kv_type=kv_type)


def costs_against(
    reference: tuple[Executor, KVLayout],
    others: Mapping[str, tuple[Executor, KVLayout]],
    texts: Sequence[Sequence[int]],
) -> dict[str, Cost]:
    """Compare each with the reference, text by text."""
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in others}
    for token_ids in texts:
        truths = list(logprobs(*reference, token_ids))
        for name, other in others.items():
            rows = zip(truths, logprobs(*other, token_ids), range(0, len(token_ids), CHUNK_LEN), strict=True)
            parts[name].extend(_compare(truth, row, token_ids[start + 1 :]) for truth, row, start in rows)
    return {name: _cost(np.concatenate(part, axis=1)) for name, part in parts.items()}


def logprobs(executor: Executor, layout: KVLayout, token_ids: Sequence[int]) -> Iterator[Logprobs]:
    """The log-probabilities of every position's next token [chunk_len, vocab_size], chunk by chunk."""
    book = PageBook(layout)
    sequence = book.sequence()
    for start in range(0, len(token_ids), CHUNK_LEN):
        chunk = token_ids[start : start + CHUNK_LEN]
        logits = executor.step(book.batch([Span(sequence, chunk, all_logits=True)])).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        yield logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def print_costs(costs: Mapping[str, Cost]) -> None:
    """One line a precision."""
    print("type       positions   mean KL   99th percentile   top-1 agreement   perplexity")
    for name, cost in costs.items():
        print(
            f"{name:8} {cost.num_positions:11,} {cost.mean_kl:9.5f} {cost.p99_kl:17.4f} {cost.top1_agreement:17.2%} "
            f"{cost.perplexity_change:+12.2%}"
        )


def _compare(truth: Logprobs, other: Logprobs, next_ids: Sequence[int]) -> NDArray[np.float64]:
    """Per position: divergence, whether the likeliest tokens agree, and the change of the text's own log-probability.

    The last position of a text has no next token: NaN.
    """
    divergence = (np.exp(truth) * (truth - other)).sum(axis=-1)
    agrees = truth.argmax(axis=-1) == other.argmax(axis=-1)
    change = np.full(len(truth), np.nan)
    rows = np.arange(min(len(truth), len(next_ids)))
    targets = np.asarray(next_ids[: len(rows)], np.int64)
    change[rows] = truth[rows, targets] - other[rows, targets]
    return np.stack([divergence, agrees, change])


def _cost(positions: NDArray[np.float64]) -> Cost:
    divergence, agrees, change = positions
    return Cost(
        num_positions=divergence.size,
        mean_kl=float(divergence.mean()),
        p99_kl=float(np.quantile(divergence, 0.99)),
        top1_agreement=float(agrees.mean()),
        perplexity_change=float(np.exp(np.nanmean(change)) - 1),
    )
