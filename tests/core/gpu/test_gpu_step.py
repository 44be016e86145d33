"""A step's indices as GPU kernels read them."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.gpu.step import make_step, query_tiles
from layerscale_core.specs import KVLayout


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), tokens_per_tile=st.integers(1, 20))
def test_tiles_cover_every_token_once_and_no_two_sequences(lengths: list[int], tokens_per_tile: int) -> None:
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    covered = [
        (sequence, token)
        for sequence, first in zip(*query_tiles(cu_seqlens, tokens_per_tile), strict=True)
        for token in range(first, min(first + tokens_per_tile, cu_seqlens[sequence + 1]))
    ]
    assert covered == [
        (index, token) for index in range(len(lengths)) for token in range(*cu_seqlens[index : index + 2])
    ]


def test_keys_are_counted_up_to_each_page() -> None:
    book = PageBook(KVLayout(9, 4, 1, 1, 16))
    sequences = [book.sequence(), book.sequence()]
    book.batch([Span(sequences[0], [0] * 9)])
    sequences[0].pages[0].start = 3
    step = make_step(book.batch([Span(sequences[0], [0]), Span(sequences[1], [0] * 2)]), torch.device("cpu"), 8)
    assert step.page_offsets.tolist() == [0, 3, 4]
    assert step.pages[:, 1:].tolist() == [[3, 4, 1], [0, 4, 5], [0, 2, 7], [0, 2, 2]]
    pages = [page.page_id for sequence in sequences for page in sequence.pages]
    assert step.pages[:, 0].tolist() == pages
    assert step.tiles.max_new_tokens == 2
    assert step.tiles.page_offsets.tolist() == [0, 3]
    assert step.tiles.num_pages == 4
