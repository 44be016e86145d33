"""Batches have the documented layout, whatever was built before in the same buffers."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.engine import PagedKVPool, Request, SamplingParams
from layerscale_core.engine.page_arrays import PageArrays
from layerscale_core.engine.plan import ScheduledSequence
from layerscale_core.engine.sequence import Admission, LiveSequence
from layerscale_core.engine.step_builder import StepBuilder
from layerscale_core.specs import PageRange, StepBatch
from tests.support.fake_tokenizer import ByteTokenizer


class Built(TypedDict):
    """A batch as lists."""

    token_ids: list[int]
    positions: list[int]
    slot_mapping: list[int]
    cu_seqlens: list[int]
    page_tables: list[list[int]]
    page_starts: list[list[int]]
    page_stops: list[list[int]]
    logits_indices: list[int]


def admitted(pool: PagedKVPool, prompt: bytes, sequence_id: int) -> LiveSequence:
    sequence = LiveSequence(
        Request(str(sequence_id), tuple(prompt), SamplingParams(8)), lambda event: None, ByteTokenizer(), 64, 0.0
    )
    sequence.admission = Admission(sequence_id, pool.admit(sequence.max_computed), 0.0)
    return sequence


def as_lists(batch: StepBatch) -> Built:
    return Built(**{name: getattr(batch, name).tolist() for name in Built.__annotations__})  # type: ignore[typeddict-item]


def test_lays_out_a_chunk_beside_a_whole_prompt() -> None:
    pool = PagedKVPool(num_pages=10, page_size=4)
    long, short = admitted(pool, b"abcdefghij", 0), admitted(pool, b"xy", 1)
    builder = StepBuilder(pool, max_tokens=16, max_logits=8)
    first = builder.build([ScheduledSequence(long, 6, 0, False), ScheduledSequence(short, 2, 1, False)])
    assert as_lists(first) == Built(
        token_ids=list(b"abcdefxy"),
        positions=[0, 1, 2, 3, 4, 5, 0, 1],
        slot_mapping=[0, 1, 2, 3, 4, 5, 8, 9],
        cu_seqlens=[0, 6, 8],
        page_tables=[[0, 1], [2, -1]],
        page_starts=[[0, 0], [0, 0]],
        page_stops=[[4, 2], [2, 0]],
        logits_indices=[7],
    )
    assert (first.num_tokens, first.num_seqs) == (8, 2)


def test_the_next_batch_continues_where_each_sequence_was() -> None:
    pool = PagedKVPool(num_pages=10, page_size=4)
    long, short = admitted(pool, b"abcdefghij", 0), admitted(pool, b"xy", 1)
    builder = StepBuilder(pool, max_tokens=16, max_logits=8)
    builder.build([ScheduledSequence(long, 6, 0, False), ScheduledSequence(short, 2, 1, False)])
    long.num_computed, short.num_computed = 6, 2
    short.tokens.append(99)
    second = builder.build([ScheduledSequence(short, 1, 1, True), ScheduledSequence(long, 4, 4, False)])
    assert as_lists(second) == Built(
        token_ids=[99, *b"ghij"],
        positions=[2, 6, 7, 8, 9],
        slot_mapping=[10, 6, 7, 12, 13],
        cu_seqlens=[0, 1, 5],
        page_tables=[[2, -1, -1], [0, 1, 3]],
        page_starts=[[0, 0, 0], [0, 0, 0]],
        page_stops=[[3, 0, 0], [4, 4, 2]],
        logits_indices=[0, 1, 2, 3, 4],
    )


def test_arrays_have_the_documented_types_and_are_contiguous() -> None:
    pool = PagedKVPool(num_pages=60, page_size=1)
    sequences = [admitted(pool, bytes(number + 1), number) for number in range(5)]
    builder = StepBuilder(pool, max_tokens=32, max_logits=8)
    batch = builder.build([ScheduledSequence(each, each.prompt_len, 1, False) for each in sequences])
    for name in Built.__annotations__:
        array = getattr(batch, name)
        assert array.dtype == (np.int64 if name == "slot_mapping" else np.int32), name
        assert array.flags.c_contiguous, name


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3).filter(any), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_a_batch_is_what_it_would_be_without_those_before_it(steps: list[list[int]]) -> None:
    """Steps of three sequences, each told by how many tokens of every one are computed."""
    pools = [PagedKVPool(num_pages=60, page_size=4) for _ in range(2)]
    twins = [[admitted(pool, bytes(range(40)), number) for number in range(3)] for pool in pools]
    lasting = StepBuilder(pools[0], max_tokens=32, max_logits=32)
    for counts in steps:
        batches = []
        builders = lasting, StepBuilder(pools[1], max_tokens=32, max_logits=32)
        for builder, sequences in zip(builders, twins, strict=True):
            scheduled = [
                ScheduledSequence(sequence, count, count % 2, False)
                for sequence, count in zip(sequences, counts, strict=True)
                if count
            ]
            batches.append(as_lists(builder.build(scheduled)))
            for item in scheduled:
                item.sequence.num_computed += item.num_tokens
        assert batches[0] == batches[1]


def test_a_step_like_the_last_one_allocates_no_batch() -> None:
    pool = PagedKVPool(num_pages=10, page_size=4)
    sequence = admitted(pool, b"abcdefgh", 0)
    builder = StepBuilder(pool, max_tokens=16, max_logits=8)
    batches = []
    for _ in range(5):
        batches.append(builder.build([ScheduledSequence(sequence, 1, 1, True)]))
        sequence.num_computed += 1
    assert len({id(batch) for batch in batches}) == 2, "one until the first page is full, and one from then on"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_page_arrays_follow_a_growing_table(growth: list[int]) -> None:
    pool, arrays = PagedKVPool(num_pages=300, page_size=3), PageArrays()
    table = pool.admit(sum(growth))
    for num_tokens in growth:
        pool.append(table, num_tokens)
        arrays.update(table.pages)
        expected = [[page.page_id, page.start, page.stop] for page in table.pages]
        assert arrays.rows.T.tolist() == expected
        assert arrays.num_pages == len(expected)


@pytest.mark.parametrize("num_pages", [0, 1, 8, 9, 100])
def test_page_arrays_take_any_number_of_pages_at_once(num_pages: int) -> None:
    arrays = PageArrays()
    arrays.update([PageRange(page_id, 0, 4) for page_id in range(num_pages)])
    assert arrays.rows.tolist() == [list(range(num_pages)), [0] * num_pages, [4] * num_pages]
