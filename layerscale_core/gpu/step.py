"""A step's indices on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscale_core.specs.executor import StepBatch


@dataclass(frozen=True, slots=True)
class QueryTiles:
    """The step's tokens, cut for attention into runs of one sequence.

    Attributes:
        sequences: int32 [num_tiles], -1 for a tile that is only there to fill a grid.
        firsts: int32 [num_tiles], each tile's first token.
        max_new_tokens: the longest run of new tokens that a sequence may have.
    """

    sequences: Tensor
    firsts: Tensor
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class StepTensors:
    """``StepBatch`` as kernels read it. Rows may be padded, so that tensors of one size serve many batches.

    Attributes:
        token_ids, positions: int32 [T].
        slots: int64 [T]; -1 where a token is padding, which is computed and written nowhere.
        cu_seqlens: int32 [S + 1].
        num_pages: int32 [S], pages in each sequence's table.
        page_tables, page_starts, page_stops: int32 [S, max_pages].
        key_ends: int32 [S, max_pages], keys in a sequence's pages up to and with each.
        tiles: attention's work.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    cu_seqlens: Tensor
    num_pages: Tensor
    page_tables: Tensor
    page_starts: Tensor
    page_stops: Tensor
    key_ends: Tensor
    tiles: QueryTiles


def query_tiles(cu_seqlens: NDArray[np.int32], tokens_per_tile: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Cut each sequence's new tokens into tiles: their sequences and their first tokens, [num_tiles] both."""
    counts = -(-np.diff(cu_seqlens) // tokens_per_tile)
    sequences = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    first_tiles = np.repeat(np.cumsum(counts) - counts, counts)
    within = np.arange(len(sequences)) - first_tiles
    return sequences, (cu_seqlens[sequences] + within * tokens_per_tile).astype(np.int32)


def key_ends(batch: StepBatch) -> NDArray[np.int32]:
    """Keys in a sequence's pages up to and with each, [num_seqs, max_pages]."""
    return np.cumsum(batch.page_stops - batch.page_starts, axis=1, dtype=np.int32)


def make_step(batch: StepBatch, device: torch.device | str, tokens_per_tile: int) -> StepTensors:
    """Bring a batch to a device, without padding."""

    def tensor(values: NDArray[np.int32] | NDArray[np.int64]) -> Tensor:
        return torch.tensor(values).to(device)

    sequences, firsts = query_tiles(batch.cu_seqlens, tokens_per_tile)
    return StepTensors(
        token_ids=tensor(batch.token_ids),
        positions=tensor(batch.positions),
        slots=tensor(batch.slot_mapping),
        cu_seqlens=tensor(batch.cu_seqlens),
        num_pages=tensor((batch.page_tables >= 0).sum(axis=1, dtype=np.int32)),
        page_tables=tensor(batch.page_tables),
        page_starts=tensor(batch.page_starts),
        page_stops=tensor(batch.page_stops),
        key_ends=tensor(key_ends(batch)),
        tiles=QueryTiles(tensor(sequences), tensor(firsts), int(np.diff(batch.cu_seqlens).max(initial=1))),
    )
