"""A step's indices on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscale_core.gpu.transfer import to_device
from layerscale_core.specs.executor import StepBatch


@dataclass(frozen=True, slots=True)
class QueryTiles:
    """The step's tokens, cut for attention into runs of one sequence.

    Attributes:
        sequences: int32 [num_tiles], -1 for a tile that is only there to fill a grid.
        firsts: int32 [num_tiles], each tile's first token.
        page_offsets: int32 [num_tiles], pages that the tiles before look at; a tile looks at all of its sequence.
        num_pages: that all look at, or more.
        max_new_tokens: the longest run of new tokens that a sequence may have.
    """

    sequences: Tensor
    firsts: Tensor
    page_offsets: Tensor
    num_pages: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class StepTensors:
    """``StepBatch`` as kernels read it. Rows may be padded, so that tensors of one size serve many batches.

    Attributes:
        token_ids, positions: int32 [T].
        slots: int64 [T]; -1 where a token is padding, which is computed and written nowhere.
        cu_seqlens: int32 [S + 1].
        page_offsets: int32 [S + 1], where each sequence's pages begin.
        pages: int32 [num_pages, 4], of each its id, the first valid offset, the end of the valid ones, and the keys of
            its sequence up to and with it.
        tiles: attention's work.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    cu_seqlens: Tensor
    page_offsets: Tensor
    pages: Tensor
    tiles: QueryTiles


def query_tiles(cu_seqlens: NDArray[np.int32], tokens_per_tile: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Cut each sequence's new tokens into tiles: their sequences and their first tokens, [num_tiles] both."""
    counts = -(-np.diff(cu_seqlens) // tokens_per_tile)
    sequences = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    first_tiles = np.repeat(np.cumsum(counts) - counts, counts)
    within = np.arange(len(sequences)) - first_tiles
    return sequences, (cu_seqlens[sequences] + within * tokens_per_tile).astype(np.int32)


def page_offsets(batch: StepBatch) -> NDArray[np.int32]:
    """Where each sequence's pages begin, and behind them the number of all."""
    counts = (batch.page_tables >= 0).sum(axis=1)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def write_pages(batch: StepBatch, out: NDArray[np.int32]) -> None:
    """Fill the rows of ``StepTensors.pages``, as many as there are pages."""
    is_page = batch.page_tables >= 0
    key_ends = np.cumsum(batch.page_stops - batch.page_starts, axis=1, dtype=np.int32)
    columns = (batch.page_tables, batch.page_starts, batch.page_stops, key_ends)
    for column, values in enumerate(columns):
        out[:, column] = values[is_page]


def make_tiles(batch: StepBatch, device: torch.device, tokens_per_tile: int) -> QueryTiles:
    """A batch's tiles, on a device."""
    sequences, firsts = query_tiles(batch.cu_seqlens, tokens_per_tile)
    stops = np.cumsum(np.diff(page_offsets(batch))[sequences], dtype=np.int32)
    offsets = np.concatenate([[0], stops[:-1]]).astype(np.int32)
    there = to_device([sequences, firsts, offsets], device)
    return QueryTiles(there[0], there[1], there[2], int(stops[-1]), longest_run(batch))


def longest_run(batch: StepBatch) -> int:
    """The most new tokens of a sequence."""
    return int(np.diff(batch.cu_seqlens).max())


def make_step(batch: StepBatch, device: torch.device, tokens_per_tile: int) -> StepTensors:
    """Bring a batch to a device, without padding."""
    offsets = page_offsets(batch)
    pages = np.empty((offsets[-1], 4), np.int32)
    write_pages(batch, pages)
    arrays: list[NDArray[Any]] = [
        batch.token_ids,
        batch.positions,
        batch.slot_mapping,
        batch.cu_seqlens,
        offsets,
        pages,
    ]
    token_ids, positions, slots, cu_seqlens, *of_pages = to_device(arrays, device)
    tiles = make_tiles(batch, device, tokens_per_tile)
    return StepTensors(token_ids, positions, slots, cu_seqlens, of_pages[0], of_pages[1], tiles)
