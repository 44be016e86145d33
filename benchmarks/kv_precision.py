"""What a smaller KV cache costs in accuracy: each precision against fp16, on the texts of the oracle tests.

python benchmarks/kv_precision.py --model MODEL.gguf
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layerscale_backend_cpu.backend import CpuBackend
from layerscale_core.conformance import PageBook, Span
from layerscale_core.formats.gguf import GgufModelFile
from layerscale_core.forward import make_executor
from layerscale_core.specs import BackendOptions, Executor, KVLayout, KVType

CORPUS = Path(__file__).parents[1] / "tests" / "oracle" / "corpus"
CHUNK_LEN = 128
"""Prompt tokens per step; with logits for each, so it bounds memory."""
PAGE_SIZE = 16

Logprobs = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cost:
    """How far a precision is from fp16 over all positions.

    Attributes:
        mean_kl: Kullback-Leibler divergence of the next token's distribution from fp16's, in nats.
        p99_kl: its 99th percentile.
        top1_agreement: share of positions with the same likeliest token.
        perplexity_change: of the texts, relative.
    """

    num_positions: int
    mean_kl: float
    p99_kl: float
    top1_agreement: float
    perplexity_change: float


def measure(model_path: Path, kv_types: Sequence[KVType]) -> dict[KVType, Cost]:
    """Compare each precision with fp16, text by text."""
    file = GgufModelFile(model_path)
    tokenizer = file.make_tokenizer()
    texts = [
        tokenizer.encode(path.read_text(encoding="utf-8"), parse_special=True) for path in sorted(CORPUS.glob("*.txt"))
    ]
    device = CpuBackend().load(BackendOptions())
    attention = file.spec.layers[0].attention
    num_pages = -(-max(map(len, texts)) // PAGE_SIZE)

    def open_executor(kv_type: KVType) -> tuple[Executor, KVLayout]:
        layout = KVLayout(
            num_pages,
            PAGE_SIZE,
            len(file.spec.layers),
            attention.num_kv_heads,
            attention.head_dim,
            kv_type=kv_type,
        )
        return make_executor(device, file.spec, file.weights, layout), layout

    executors = {kv_type: open_executor(kv_type) for kv_type in (KVType.FP16, *kv_types)}
    parts: dict[KVType, list[NDArray[np.float64]]] = {kv_type: [] for kv_type in kv_types}
    for token_ids in texts:
        fp16 = list(logprobs(*executors[KVType.FP16], token_ids))
        for kv_type in kv_types:
            rows = zip(fp16, logprobs(*executors[kv_type], token_ids), range(0, len(token_ids), CHUNK_LEN), strict=True)
            parts[kv_type].extend(_compare(truth, row, token_ids[start + 1 :]) for truth, row, start in rows)
    for executor, _ in executors.values():
        executor.close()
    file.close()
    return {kv_type: _cost(np.concatenate(part, axis=1)) for kv_type, part in parts.items()}


def logprobs(executor: Executor, layout: KVLayout, token_ids: Sequence[int]) -> Iterator[Logprobs]:
    """The log-probabilities of every position's next token [chunk_len, vocab_size], chunk by chunk."""
    book = PageBook(layout)
    sequence = book.sequence()
    for start in range(0, len(token_ids), CHUNK_LEN):
        chunk = token_ids[start : start + CHUNK_LEN]
        logits = executor.step(book.batch([Span(sequence, chunk, all_logits=True)])).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        yield logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


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


def main() -> int:
    """Print one line a precision."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    costs = measure(parser.parse_args().model, [KVType.INT8, KVType.INT4])
    print("KV type   positions   mean KL   99th percentile   top-1 agreement   perplexity")
    for kv_type, cost in costs.items():
        print(
            f"{kv_type:7} {cost.num_positions:11,} {cost.mean_kl:9.5f} {cost.p99_kl:17.4f} {cost.top1_agreement:17.2%} "
            f"{cost.perplexity_change:+12.2%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
