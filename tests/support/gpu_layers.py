"""One layer's attention on a device beside the reference, step after step. Needs torch and Triton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscale_core.conformance.executors import reference_kernels
from layerscale_core.conformance.step_batches import PageBook, PagedSequence, Span
from layerscale_core.gpu.attention import attention, tokens_per_tile
from layerscale_core.gpu.heads import HeadProjection, project_heads
from layerscale_core.gpu.kv_cache import KVCache, allocate_cache
from layerscale_core.gpu.linear import Norm
from layerscale_core.gpu.matrix import pack
from layerscale_core.gpu.rope import device_rope
from layerscale_core.gpu.step import StepTensors, longest_run, make_step
from layerscale_core.gpu.tuning import AttentionTile, ProductTile, Tuning
from layerscale_core.gpu.workspace import Workspace, allocate_workspace
from layerscale_core.models import AttentionSpec, DenseMatrix, RopeSpec
from layerscale_core.reference import ReferenceKernels
from layerscale_core.reference.kv_cache import PagedKV
from layerscale_core.specs import KVLayout, KVType, StepBatch

Floats = NDArray[np.float32]

CPU = torch.device("cpu")
HIDDEN = 96
LAYER = 1
EPS = 1e-5

SMALL = Tuning(
    rows=16,
    columns=32,
    stretch=64,
    products=(ProductTile(16, 16), ProductTile(2**31, 32)),
    keys=32,
    partition=64,
    attention=(AttentionTile(1, 16), AttentionTile(2**31, 32)),
)
"""Tiles so small that tests cross all their edges."""

NO_ROOM = allocate_workspace("cpu", 0, 0)
"""With it no tile is split."""


def make_workspace() -> Workspace:
    """Room for every split of a test."""
    return allocate_workspace("cpu", 2**20, 256)


def tensor(values: NDArray[np.generic]) -> Tensor:
    """A copy on the "device"."""
    return torch.tensor(values)


def cache_bytes(cache: KVCache, layer: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Keys and values of a layer in the order of the reference's codecs: [num_slots, num_kv_heads, num_bytes]."""

    def in_slots(parts: Sequence[Tensor | None]) -> NDArray[np.uint8]:
        by_slot = [part[layer].transpose(1, 2).flatten(0, 1).contiguous() for part in parts if part is not None]
        return np.concatenate([part.numpy().view(np.uint8) for part in by_slot], axis=-1)

    return in_slots(cache.keys), in_slots(cache.values)


@dataclass
class Layer:
    """A random layer's projections, its cache, and the reference's, in step."""

    kv_type: KVType
    head_dim: int
    num_heads: int
    num_kv_heads: int
    window: int | None = None
    softcap: float | None = None
    rotary_dim: int | None = None
    interleaved: bool = False
    has_biases: bool = True
    has_qk_norm: bool = True
    chunk: int | None = None
    seed: int = 0
    reference: ReferenceKernels = field(default_factory=reference_kernels)

    def __post_init__(self) -> None:
        rotary_dim = self.rotary_dim or self.head_dim
        inv_freq = tuple(10_000.0 ** (-2 * pair / rotary_dim) for pair in range(rotary_dim // 2))
        rope = RopeSpec(inv_freq, 1.1, self.interleaved)
        self.spec = AttentionSpec(
            self.num_heads, self.num_kv_heads, self.head_dim, self.head_dim**-0.5, rope, self.window, self.softcap,
            self.has_biases, self.has_qk_norm, self.chunk,
        )  # fmt: skip
        self.layout = KVLayout(24, 16, 2, self.num_kv_heads, self.head_dim, kv_type=self.kv_type)
        self.book = PageBook(self.layout)
        self.cache = allocate_cache(self.layout, "cpu")
        self.truth_kv: PagedKV = self.reference.allocate_kv(self.layout)
        self.random = np.random.default_rng(self.seed)
        self.workspace = make_workspace()
        self.head_counts = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        self.weights = [self._random((count * self.head_dim, HIDDEN), 0.1) for count in self.head_counts]
        self.biases = [self._random((count * self.head_dim,), 0.3) for count in self.head_counts]
        self.norm, self.query_norm, self.key_norm = (
            1 + self._random((size,), 0.2) for size in (HIDDEN, self.head_dim, self.head_dim)
        )

    def batch(self, lengths: dict[int, int], sequences: Sequence[PagedSequence]) -> StepBatch:
        """New tokens for some of the sequences, by their index."""
        return self.book.batch([Span(sequences[index], [0] * length) for index, length in lengths.items()])

    def run(self, batch: StepBatch, tuning: Tuning = SMALL) -> tuple[Floats, Floats]:
        """Project and attend, on the device and in the reference; both write their caches."""
        x = self._random((batch.num_tokens, HIDDEN), 2.0)
        query = self.project(x, batch, tuning)
        return self.attend(query, batch, tuning, self.workspace), self.truth(x, batch)

    def project(self, x: Floats, batch: StepBatch, tuning: Tuning) -> Tensor:
        """Queries as the device's attention takes them; writes the device's cache."""
        query = torch.full((len(x), self.num_heads * self.head_dim), torch.nan)
        qk_norms = [tensor(norm) if self.has_qk_norm else None for norm in (self.query_norm, self.key_norm)]
        # Queries and keys stacked, values by themselves, as where their layouts differ.
        for first, parts in ((0, slice(0, 2)), (self.num_heads + self.num_kv_heads, slice(2, 3))):
            matrix = pack(DenseMatrix(np.concatenate(self.weights[parts])), "cpu", torch.float32)
            bias = tensor(np.concatenate(self.biases[parts])) if self.has_biases else None
            project_heads(
                tensor(x), HeadProjection(matrix, first, bias), make_step(batch, CPU, 1), self.cache, LAYER,
                norm=Norm(tensor(self.norm), EPS), rope=device_rope(self.spec.rope, "cpu"), spec=self.spec,
                query_out=query, workspace=self.workspace, tuning=tuning, query_norm=qk_norms[0],
                key_norm=qk_norms[1],
            )  # fmt: skip
        return query

    def attend(
        self, query: Tensor, batch: StepBatch, tuning: Tuning, workspace: Workspace, step: StepTensors | None = None
    ) -> Floats:
        """The device's attention."""
        if step is None:
            step = make_step(batch, CPU, tokens_per_tile(self.spec, longest_run(batch), tuning))
        out = torch.full_like(query, torch.nan)
        attention(query, self.cache, LAYER, step, self.spec, out=out, workspace=workspace, tuning=tuning)
        return out.numpy()

    def truth(self, x: Floats, batch: StepBatch) -> Floats:
        """The reference's attention; writes the reference's cache."""
        kernels, step = self.reference, self.reference.begin_step(batch)
        normed = kernels.rms_norm(x, self.norm, EPS)
        query, key, value = (
            normed @ weight.T + (bias if self.has_biases else 0)
            for weight, bias in zip(self.weights, self.biases, strict=True)
        )
        if self.has_qk_norm:
            query, key = kernels.rms_norm(query, self.query_norm, EPS), kernels.rms_norm(key, self.key_norm, EPS)
        query = kernels.rope(query, step, self.num_heads, self.head_dim, self.spec.rope)
        key = kernels.rope(key, step, self.num_kv_heads, self.head_dim, self.spec.rope)
        kernels.store_kv(key, value, self.truth_kv, LAYER, step)
        return kernels.attention(query, self.truth_kv, LAYER, step, self.spec)

    def _random(self, shape: tuple[int, ...], deviation: float) -> Floats:
        return (self.random.standard_normal(shape) * deviation).astype(np.float32)
