"""The forward pass: one call per step for the whole ragged batch."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class KVType(enum.StrEnum):
    """Precision of the KV cache; the members' values are those of ``--kv-cache-type``."""

    FP16 = "fp16"
    """16-bit floats."""
    INT8 = "int8"
    """8-bit codes; a float16 scale for each token's key and value at each KV head."""
    INT4 = "int4"
    """4-bit codes; a float16 scale and minimum for each 32 elements of a key and each 64 of a value."""

    def bytes_per_head(self, head_dim: int) -> int:
        """Bytes of one token's key and value at one KV head.

        Codes fill whole 32-bit words. A head that its groups do not divide is one group.
        """
        match self:
            case KVType.FP16:
                return 2 * 2 * head_dim
            case KVType.INT8:
                return 2 * (_code_bytes(8, head_dim) + 2)
            case KVType.INT4:
                num_groups = self.num_key_groups(head_dim) + self.num_value_groups(head_dim)
                return 2 * _code_bytes(4, head_dim) + 4 * num_groups

    def num_key_groups(self, head_dim: int) -> int:
        """Parts of a key with a scale each."""
        return _num_groups(head_dim, 32) if self is KVType.INT4 else 1

    def num_value_groups(self, head_dim: int) -> int:
        """Parts of a value with a scale each."""
        return _num_groups(head_dim, 64) if self is KVType.INT4 else 1


def _code_bytes(bits: int, head_dim: int) -> int:
    return -(-bits * head_dim // 32) * 4


def _num_groups(head_dim: int, group_size: int) -> int:
    return head_dim // group_size if head_dim % group_size == 0 else 1


@dataclass(frozen=True, slots=True)
class KVLayout:
    """The shape of the paged KV cache, committed once.

    A slot is one token's place: ``page_id * page_size + offset``.

    Attributes:
        num_session_pages: of all pages, how many are kept for sessions; stateless requests never get those.
    """

    num_pages: int
    page_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    num_session_pages: int = 0
    kv_type: KVType = KVType.FP16

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values per token, all layers, scales included."""
        return self.num_layers * self.num_kv_heads * self.kv_type.bytes_per_head(self.head_dim)

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole cache."""
        return self.num_pages * self.page_size * self.bytes_per_token

    @property
    def page_shape(self) -> str:
        """What a page holds, in words: equal for caches that differ in their number of pages alone."""
        return (
            f"{self.kv_type} pages of {self.page_size} tokens, "
            f"{self.num_layers} layers x {self.num_kv_heads} KV heads x {self.head_dim} wide"
        )


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One step's ragged batch: prefill chunks and decode tokens of all scheduled sequences, one after the other.

    A sequence that decodes has several tokens, each with its logits, where a draft is verified.

    The keys a sequence attends to are the valid slots ``[page_starts, page_stops)`` of its pages in order; its tokens
    of this step are the last of them. A token sees itself and every key before it.

    Attributes:
        token_ids: int32 [num_tokens].
        positions: int32 [num_tokens], RoPE positions.
        slot_mapping: int64 [num_tokens], where each token's key and value are written; no slot twice.
        cu_seqlens: int32 [num_seqs + 1], cumulative counts of new tokens, first 0; each sequence has at least one.
        page_tables: int32 [num_seqs, max_pages], padded with -1.
        page_starts: int32 [num_seqs, max_pages], first valid offset in each page; 0 where padded.
        page_stops: int32 [num_seqs, max_pages], end (exclusive) of the valid offsets, this step's tokens included;
            0 where padded.
        logits_indices: int32 [num_logits], the tokens whose logits are wanted, ascending.
    """

    token_ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    slot_mapping: NDArray[np.int64]
    cu_seqlens: NDArray[np.int32]
    page_tables: NDArray[np.int32]
    page_starts: NDArray[np.int32]
    page_stops: NDArray[np.int32]
    logits_indices: NDArray[np.int32]

    @property
    def num_tokens(self) -> int:
        """Tokens computed in this step."""
        return int(self.token_ids.shape[0])

    @property
    def num_seqs(self) -> int:
        """Sequences in this step."""
        return int(self.cu_seqlens.shape[0]) - 1


class DeviceLogits(Protocol):
    """A step's logits that the device has searched. They read as the array [num_logits, vocab_size] they stand for.

    They may have stayed on the device: rows come to the host when they are asked for, so that those of which the
    likeliest token is enough never do.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """[num_logits, vocab_size]."""
        ...

    @property
    def likeliest(self) -> list[int | None]:
        """Each row's likeliest token, of equals the first; None where a row holds NaN or infinity. On the host."""
        ...

    def __getitem__(self, row: int, /) -> NDArray[np.float32]:
        """One row, on the host."""
        ...

    def __array__(self, dtype: Any = None, /, *, copy: bool | None = None) -> NDArray[Any]:
        """All rows, on the host."""
        ...

    def copy(self) -> NDArray[np.float32]:
        """All rows, to keep."""
        ...


StepLogits = NDArray[np.float32] | DeviceLogits
"""Logits as an executor gives them."""


class PagedLayers(Protocol):
    """Weights and KV cache of a model's layers, all of them or some, and what is done to the cache's pages."""

    def copy_pages(self, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """Copy whole pages, all layers: what copy-on-write needs. The two lists are of equal length and disjoint."""
        ...

    def shift_positions(self, page_ids: NDArray[np.int32], delta: int) -> None:
        """Rotate the cached keys of whole pages, all layers, as if each token stood ``delta`` positions further.

        RoPE is a rotation, so this is exact up to the rounding of storage. What invalid slots hold is rotated too or
        left alone.

        Args:
            page_ids: no page twice.
            delta: may be negative.
        """
        ...

    @property
    def kv_fingerprint(self) -> str:
        """What the bytes of a page mean: kind and version of the executor's layout, and the page's shape.

        Pages may be written where the fingerprint equals that of the executor they were read from, and the model's
        weights do.
        """
        ...

    def read_pages(self, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The content of whole pages, all layers: [num_pages, bytes_per_page] in the executor's own layout."""
        ...

    def write_pages(self, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Put back what ``read_pages`` gave, into any pages: they hold the same, bit for bit.

        Args:
            page_ids: no page twice.
            data: [num_pages, bytes_per_page].

        Raises:
            ValueError: the data has another shape; no page is changed.
        """
        ...

    def close(self) -> None:
        """Free what is held. Idempotent; nothing else may be called afterwards."""
        ...


class Executor(PagedLayers, Protocol):
    """Weights and KV cache on a device, and the one call that advances them. Used by the engine thread alone."""

    def step(self, batch: StepBatch) -> StepLogits:
        """Compute a batch: write its keys and values, return the wanted logits.

        A sequence's logits do not depend on its neighbours in the batch, nor on how its tokens were cut into steps; on
        the latter up to the rounding of the cache where a model brings its own backend.

        Returns:
            float32 [num_logits, vocab_size], in the order of ``logits_indices``; valid until the next call.

        Raises:
            StepError: the device failed; the KV of the batch's slots is undefined, all else is intact.
        """
        ...


class HostedLayers(PagedLayers, Protocol):
    """Layers that another device left in the host's memory, and the call that computes them. Used as an executor is."""

    def run(self, x: NDArray[np.float32], batch: StepBatch, layers: range) -> NDArray[np.float32]:
        """Compute neighbouring layers for a batch: write its keys and values, return the residual stream behind them.

        What ``Executor.step`` promises of a sequence's logits holds for its rows. Token ids and ``logits_indices``
        say nothing here.

        Args:
            x: [num_tokens, hidden], before the first of them; may be what an earlier call returned, else not modified.
            layers: which, counted from 0 over those that are held.

        Returns:
            [num_tokens, hidden]; valid until the next call.

        Raises:
            StepError: as ``Executor.step``.
        """
        ...
