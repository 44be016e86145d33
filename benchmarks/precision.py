"""How far ways to compute a model are from one another, on the texts of the oracle tests."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layerscale_backend_cpu.backend import CpuBackend
from layerscale_core.conformance import PageBook, Span
from layerscale_core.formats.gguf import GgufModelFile
from layerscale_core.forward import make_executor
from layerscale_core.specs import ActivationType, BackendOptions, KVLayout, KVType, WeightSource, num_pages_for

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


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to compute a model: what the KV cache and activations are, and what becomes of the file's weights."""

    kv_type: KVType = KVType.FP16
    activation_type: ActivationType = ActivationType.INT16
    weights: Callable[[GgufModelFile], WeightSource] = attrgetter("weights")


def costs_against(
    reference: Setup, others: Mapping[str, Setup], model_path: Path, max_text_len: int | None = None
) -> dict[str, Cost]:
    """Compare each with the reference on one model, text by text."""
    file = GgufModelFile(model_path)
    tokenizer = file.make_tokenizer()
    texts = [tokenizer.encode(text.read_text("utf-8"), parse_special=True) for text in sorted(CORPUS.glob("*.txt"))]
    texts = [token_ids[:max_text_len] for token_ids in texts]
    truth = _Opened(file, reference, max(map(len, texts)))
    opened = {name: _Opened(file, setup, max(map(len, texts))) for name, setup in others.items()}
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in others}
    for token_ids in texts:
        truths = list(truth.logprobs(token_ids))
        for name, other in opened.items():
            rows = zip(truths, other.logprobs(token_ids), range(0, len(token_ids), CHUNK_LEN), strict=True)
            parts[name].extend(_compare(truth, row, token_ids[start + 1 :]) for truth, row, start in rows)
    for each in (truth, *opened.values()):
        each.executor.close()
    file.close()
    return {name: _cost(np.concatenate(part, axis=1)) for name, part in parts.items()}


class _Opened:
    """A setup with its weights loaded, and a cache for one text."""

    def __init__(self, file: GgufModelFile, setup: Setup, text_len: int) -> None:
        spec, attention = file.spec, file.spec.layers[0].attention
        num_pages = num_pages_for(text_len, PAGE_SIZE)
        shape = (num_pages, PAGE_SIZE, len(spec.layers), attention.num_kv_heads, attention.head_dim)
        self._layout = KVLayout(*shape, kv_type=setup.kv_type)
        device = CpuBackend().load(BackendOptions(activation_type=setup.activation_type))
        self.executor = make_executor(device, spec, setup.weights(file), self._layout)

    def logprobs(self, token_ids: Sequence[int]) -> Iterator[Logprobs]:
        """The log-probabilities of every position's next token [chunk_len, vocab_size], chunk by chunk."""
        book = PageBook(self._layout)
        sequence = book.sequence()
        for start in range(0, len(token_ids), CHUNK_LEN):
            chunk = token_ids[start : start + CHUNK_LEN]
            logits = np.array(self.executor.step(book.batch([Span(sequence, chunk, all_logits=True)])), np.float64)
            logits -= logits.max(axis=-1, keepdims=True)
            yield logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def model_argument(doc: str | None) -> Path:
    """The model's path of a command that takes nothing else."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    path: Path = parser.parse_args().model
    return path


def print_costs(costs: Mapping[str, Cost]) -> None:
    """One line a precision."""
    print("type               positions   mean KL   99th percentile   top-1 agreement   perplexity")
    for name, cost in costs.items():
        print(
            f"{name:16} {cost.num_positions:11,} {cost.mean_kl:9.5f} {cost.p99_kl:17.4f} {cost.top1_agreement:17.2%} "
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
