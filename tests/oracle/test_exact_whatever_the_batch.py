"""On the real model: a sequence's logits are the same bit for bit, however it is cut and whoever is beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from layerscale_core.conformance import PageBook, Span
from layerscale_core.specs import Executor, KVLayout

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("oracle")]

TEXT_LEN = 96
VOCAB_SIZE = 49152


@pytest.fixture(scope="module")
def token_ids() -> list[int]:
    return _random_ids(TEXT_LEN, seed=0)


@pytest.fixture(scope="module")
def one_by_one(executor: Executor, layout: KVLayout, token_ids: list[int]) -> NDArray[np.float32]:
    """The text as decoding computes it: a token a step, alone."""
    return _logits(executor, layout, token_ids, [1] * TEXT_LEN)


@pytest.mark.parametrize(
    "chunk_lens",
    [[96], [95, 1], [1, 95], [15, 1, 16, 17, 47], [31, 33, 32], [2, 3, 5, 7, 11, 13, 55]],
    ids=lambda lens: "+".join(map(str, lens)),
)
def test_prefill_equals_decode_whatever_the_chunks(
    executor: Executor,
    layout: KVLayout,
    token_ids: list[int],
    one_by_one: NDArray[np.float32],
    chunk_lens: list[int],
) -> None:
    np.testing.assert_array_equal(_logits(executor, layout, token_ids, chunk_lens), one_by_one)


def test_decode_among_eight_neighbours_equals_decode_alone(
    executor: Executor, layout: KVLayout, token_ids: list[int], one_by_one: NDArray[np.float32]
) -> None:
    book = PageBook(layout, seed=1)
    sequence, neighbours = book.sequence(), [book.sequence() for _ in range(8)]
    # Neighbours of all lengths, some in prefill beside the sequence's decode tokens, before and after it in the batch.
    for position, token_id in enumerate(token_ids[:32]):
        spans = [
            Span(neighbour, _random_ids(1 + (position * index) % 7, seed=index))
            for index, neighbour in enumerate(neighbours)
        ]
        place = position % (len(spans) + 1)
        logits = executor.step(book.batch([*spans[:place], Span(sequence, [token_id]), *spans[place:]]))
        np.testing.assert_array_equal(logits[place], one_by_one[position])


def _logits(
    executor: Executor, layout: KVLayout, token_ids: Sequence[int], chunk_lens: Sequence[int]
) -> NDArray[np.float32]:
    book = PageBook(layout, seed=len(chunk_lens))
    sequence = book.sequence()
    chunks = np.split(np.array(token_ids), np.cumsum(chunk_lens)[:-1])
    return np.concatenate(
        [executor.step(book.batch([Span(sequence, chunk.tolist(), all_logits=True)])).copy() for chunk in chunks]
    )


def _random_ids(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, length).tolist()
