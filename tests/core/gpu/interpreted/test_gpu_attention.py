"""Projection of heads and attention, against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from layerscale_core.gpu.graphs import DecodeBuffers
from layerscale_core.gpu.kv_cache import Pages, shift_positions
from layerscale_core.gpu.rope import device_rope
from layerscale_core.gpu.step import page_offsets
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.specs import KVType, StepBatch
from tests.support.gpu_layers import CPU, LAYER, NO_ROOM, SMALL, Layer, cache_bytes

TOLERANCE = 5e-4
"""Of the largest output: a unit in the last place of float16. A key between two of its values may round to either."""

LAYERS: dict[str, dict[str, Any]] = {
    "fp16, no groups": {"kv_type": KVType.FP16, "head_dim": 64, "num_heads": 2, "num_kv_heads": 2},
    "fp16, groups of three, window": {
        "kv_type": KVType.FP16,
        "head_dim": 80,
        "num_heads": 6,
        "num_kv_heads": 2,
        "window": 20,
        "interleaved": True,
        "has_biases": False,
    },
    "int8, groups of eight": {"kv_type": KVType.INT8, "head_dim": 128, "num_heads": 8, "num_kv_heads": 1},
    "int8, odd width, part of it rotated": {
        "kv_type": KVType.INT8,
        "head_dim": 20,
        "num_heads": 3,
        "num_kv_heads": 1,
        "rotary_dim": 6,
        "has_qk_norm": False,
    },
    "int4, groups of three, soft cap": {
        "kv_type": KVType.INT4,
        "head_dim": 64,
        "num_heads": 3,
        "num_kv_heads": 1,
        "softcap": 2.0,
        "window": 33,
    },
    "fp16, chunks": {"kv_type": KVType.FP16, "head_dim": 64, "num_heads": 2, "num_kv_heads": 1, "chunk": 16},
    "int4, wide heads": {"kv_type": KVType.INT4, "head_dim": 256, "num_heads": 1, "num_kv_heads": 1},
    "int4, one group a head": {"kv_type": KVType.INT4, "head_dim": 80, "num_heads": 2, "num_kv_heads": 1},
}


def deviation(actual: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(actual - truth).max() / np.abs(truth).max())


@pytest.mark.parametrize("name", LAYERS)
def test_a_prompt_and_what_follows_equal_the_reference(name: str) -> None:
    layer = Layer(**LAYERS[name])
    sequences = [layer.book.sequence() for _ in range(3)]
    for lengths in ({0: 37, 1: 3}, {0: 1, 1: 17}, {0: 1, 1: 1, 2: 1}):
        actual, truth = layer.run(layer.batch(lengths, sequences))
        assert deviation(actual, truth) <= TOLERANCE
    for stored, expected in zip(
        cache_bytes(layer.cache, LAYER), (layer.truth_kv.keys[LAYER], layer.truth_kv.values[LAYER]), strict=True
    ):
        assert (stored != expected).mean() <= 0.002
    assert not layer.workspace.counters.any()


TAKING_TURNS = replace(SMALL, partition=32, target_programs=2, sharing=1)
"""Two programs for four partitions."""


@pytest.mark.parametrize(
    ("kv_type", "tuning"), [(KVType.FP16, SMALL), (KVType.INT4, SMALL), (KVType.FP16, TAKING_TURNS)]
)
def test_splitting_a_context_over_programs_changes_no_bit(kv_type: KVType, tuning: Tuning) -> None:
    layer = Layer(kv_type, 32, 2, 1)
    sequences = [layer.book.sequence()]
    layer.run(layer.batch({0: 100}, sequences))
    batch = layer.batch({0: 3}, sequences)
    query = layer.project(layer.random.standard_normal((3, 96)).astype(np.float32), batch, tuning)
    split, whole = (layer.attend(query, batch, tuning, workspace) for workspace in (layer.workspace, NO_ROOM))
    np.testing.assert_array_equal(split, whole)


@pytest.mark.parametrize("lengths", [(1, 2), (150, 40)])
def test_the_buffers_of_recorded_steps_serve_contexts_of_every_length(lengths: tuple[int, int]) -> None:
    buffers = DecodeBuffers(max_seqs=3, max_pages=24, device=CPU)
    recorded = buffers.tensors(3)
    layer = Layer(KVType.FP16, 32, 2, 1)
    sequences = [layer.book.sequence() for _ in lengths]
    layer.run(layer.batch(dict(enumerate(lengths)), sequences))
    batch = layer.batch({0: 1, 1: 1}, sequences)
    query = layer.project(layer.random.standard_normal((2, 96)).astype(np.float32), batch, SMALL)
    buffers.fill(batch, page_offsets(batch))
    padded = torch.cat([query, query[:1]])
    actual = layer.attend(padded, batch, SMALL, layer.workspace, recorded)
    np.testing.assert_array_equal(actual[:2], layer.attend(query, batch, SMALL, layer.workspace))
    assert np.isnan(actual[2]).all()


def vast(layer: Layer, num_pages: int) -> None:
    """Give a layer a cache of so many pages. Those that nobody touches take no memory."""

    def pages(width: int) -> Pages:
        shape = (num_pages, layer.layout.num_kv_heads, layer.layout.page_size)
        codes, scales = np.zeros((*shape, width), np.uint8), np.zeros((*shape, 1), np.float16)
        return Pages(
            torch.from_numpy(codes).expand(2, *codes.shape), torch.from_numpy(scales).expand(2, *scales.shape), None
        )

    width = layer.layout.head_dim
    layer.cache = replace(
        layer.cache, layout=replace(layer.layout, num_pages=num_pages), keys=pages(width), values=pages(width)
    )


def test_pages_behind_the_reach_of_32_bits_are_found() -> None:
    near, far = (Layer(KVType.INT8, 128, 2, 1) for _ in range(2))
    first_page = 2**20 + 3  # of 2,048 bytes each
    vast(far, first_page + near.layout.num_pages)
    sequences = [near.book.sequence()]
    for lengths in ({0: 37}, {0: 1}):
        batch = near.batch(lengths, sequences)
        moved = replace(
            batch,
            page_tables=batch.page_tables + np.int32(first_page),
            slot_mapping=batch.slot_mapping + 16 * first_page,
        )
        x = near.random.standard_normal((batch.num_tokens, 96)).astype(np.float32)
        there, here = (
            layer.attend(layer.project(x, each, SMALL), each, SMALL, layer.workspace)
            for layer, each in ((far, moved), (near, batch))
        )
        np.testing.assert_array_equal(there, here)
    rope = device_rope(near.spec.rope, CPU)
    page_ids = torch.tensor([page.page_id for page in sequences[0].pages])
    shift_positions(near.cache, LAYER, page_ids, 77, rope)
    shift_positions(far.cache, LAYER, page_ids + first_page, 77, rope)
    for ours, theirs in zip(near.cache.parts, far.cache.parts, strict=True):
        assert torch.equal(ours[LAYER, page_ids], theirs[LAYER, page_ids + first_page])


def test_pages_that_are_partly_or_wholly_dropped_are_not_seen() -> None:
    layer = Layer(KVType.FP16, 16, 2, 1, window=40)
    sequences = [layer.book.sequence()]
    layer.run(layer.batch({0: 90}, sequences))
    pages = sequences[0].pages
    pages[0].start = 5
    pages[1].stop = pages[1].start = 9
    pages[3].start, pages[3].stop = 4, 6
    for lengths in ({0: 1}, {0: 19}):
        actual, truth = layer.run(layer.batch(lengths, sequences))
        assert deviation(actual, truth) <= TOLERANCE


def test_a_window_of_one_key_gives_the_tokens_own_value() -> None:
    layer = Layer(KVType.FP16, 16, 1, 1, window=1)
    actual, truth = layer.run(layer.batch({0: 37}, [layer.book.sequence()]))
    assert deviation(actual, truth) <= TOLERANCE


def test_padding_is_written_nowhere() -> None:
    layer = Layer(KVType.INT8, 32, 2, 1)
    batch = layer.batch({0: 2}, [layer.book.sequence()])
    padded = StepBatch(
        token_ids=np.append(batch.token_ids, [0]).astype(np.int32),
        positions=np.append(batch.positions, [0]).astype(np.int32),
        slot_mapping=np.append(batch.slot_mapping, [-1]),
        cu_seqlens=batch.cu_seqlens,
        page_tables=batch.page_tables,
        page_starts=batch.page_starts,
        page_stops=batch.page_stops,
        logits_indices=batch.logits_indices,
    )
    x = layer.random.standard_normal((3, 96)).astype(np.float32)
    query = layer.project(x, padded, SMALL)
    actual = layer.attend(query, padded, SMALL, layer.workspace)
    assert deviation(actual[:2], layer.truth(x[:2], batch)) <= TOLERANCE
    assert np.isnan(actual[2]).all()
    for stored, expected in zip(
        cache_bytes(layer.cache, LAYER), (layer.truth_kv.keys, layer.truth_kv.values), strict=True
    ):
        np.testing.assert_array_equal(stored.any(axis=(1, 2)), expected[LAYER].any(axis=(1, 2)))
