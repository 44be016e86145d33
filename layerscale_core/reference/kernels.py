"""Every kernel in plain float32 numpy: the truth that other kernels are measured against.

Exactness: a token's result depends on its own inputs and context alone, bit for bit, never on its neighbours in the
batch nor on how a prompt is cut into chunks. Elementwise operations and reductions along a row have this by nature.
Matrix products do not, because a BLAS picks its summation order by shape, so every product here has a shape that only
the weights (``linear``) or the token's own context (``attention``) decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerscale_core.elementary import ElementaryKernels
from layerscale_core.errors import OutOfMemoryError
from layerscale_core.models import Activation, AttentionSpec, Matrix, ModelSpec, MoeSpec, RopeSpec, TemperatureSpec
from layerscale_core.reference.arrays import Floats
from layerscale_core.reference.attention import attend, by_head, first_seen
from layerscale_core.reference.elementwise import gelu_tanh, sigmoid, softcap, softmax
from layerscale_core.reference.kv_cache import PagedKV, context_slots
from layerscale_core.reference.kv_codecs import FloatCodec, KVCodec, key_codec, value_codec
from layerscale_core.reference.memory import reference_memory_needs
from layerscale_core.reference.rope import rotate
from layerscale_core.specs.executor import KVLayout, KVType, StepBatch
from layerscale_core.specs.kernels import ExpertWeights
from layerscale_core.specs.memory import Allocator, MemoryNeeds, StepLimits
from layerscale_core.specs.model_format import WeightSource

ROWS_PER_TILE = 8
"""Rows of activations in one matrix product: few enough for one pass of every BLAS micro-kernel, so that all rows go
through the same code (measured exact on every x86 target of OpenBLAS, where 16 is not: Haswell's takes 12 and then 4).
A lone decode token is padded to it."""

_quiet = np.errstate(all="ignore")
"""Overflow and NaN are found by the engine in the logits; numpy's warnings would say it a thousand times."""


@dataclass(frozen=True, slots=True)
class Step:
    """A batch as these kernels read it."""

    batch: StepBatch
    page_ranges: tuple[NDArray[np.int32], ...]
    """For each sequence its pages [num_pages, 3]: id, first valid offset, end of the valid offsets."""


class ReferenceKernels(ElementaryKernels):
    """``layerscale_core.specs.Kernels`` in numpy. Weights are dequantised to float32 when they are loaded.

    Args:
        allocator: counts every weight and the KV cache.
        kv_dtype: what a cache of type fp16 holds: float16, or float32 for an oracle without that rounding.
        rows_per_tile: more than the default makes long prompts faster, for an oracle that gives up exactness.
    """

    def __init__(
        self, allocator: Allocator, kv_dtype: type[np.floating] = np.float16, rows_per_tile: int = ROWS_PER_TILE
    ) -> None:
        self._allocator = allocator
        self._kv_dtype = np.dtype(kv_dtype)
        self._rows_per_tile = rows_per_tile
        self._held: list[tuple[int, str]] = []

    def memory_needs(self, spec: ModelSpec, weights: WeightSource, limits: StepLimits) -> MemoryNeeds:  # noqa: ARG002
        """Float32 everywhere."""
        return reference_memory_needs(spec, limits)

    def load_matrix(self, matrix: Matrix) -> Floats:
        """A weight matrix as float32 [rows, cols]."""
        rows, cols = matrix.shape
        self._reserve(4 * rows * cols, "weights")
        return matrix.dequantize()

    def load_vector(self, vector: NDArray[np.float32]) -> Floats:
        """A weight vector as float32 [n]."""
        self._reserve(vector.nbytes, "weights")
        return vector.copy()

    def allocate_kv(self, layout: KVLayout) -> PagedKV:
        """Zeroed keys and values."""
        codecs = self._codecs(layout)
        shape = (layout.num_layers, layout.num_pages * layout.page_size, layout.num_kv_heads)
        num_bytes = math.prod(shape) * sum(codec.num_bytes for codec in codecs)
        self._reserve(num_bytes, "KV cache")
        try:
            keys, values = (np.zeros((*shape, codec.num_bytes), np.uint8) for codec in codecs)
        except MemoryError:
            raise OutOfMemoryError(f"the system refused {num_bytes:,} bytes for the KV cache") from None
        return PagedKV(keys, values, *codecs, layout.page_size)

    def begin_step(self, batch: StepBatch) -> Step:
        """Gather each sequence's pages."""
        tables = np.stack([batch.page_tables, batch.page_starts, batch.page_stops], axis=-1)
        return Step(batch, tuple(table[table[:, 0] >= 0] for table in tables))

    def embed(self, table: Floats, step: Step) -> Floats:
        """Rows of the embedding matrix."""
        return table[step.batch.token_ids]

    @_quiet
    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        """``x / sqrt(mean(x²) + eps) * weight``, for each part of a row that is as wide as the weight."""
        parts = x.reshape(len(x), -1, weight.size)
        mean_square: Floats = np.square(parts).mean(axis=-1, keepdims=True)
        normed: Floats = parts / np.sqrt(mean_square + np.float32(eps))
        normed *= weight
        return normed.reshape(x.shape)

    @_quiet
    def linear(self, x: Floats, matrix: Floats) -> Floats:
        """``x @ matrix.T``, in tiles of a fixed number of rows, the last one padded (see the module)."""
        num_rows, cols = x.shape
        num_tiles = -(-num_rows // self._rows_per_tile)
        tiles = np.zeros((num_tiles * self._rows_per_tile, cols), np.float32)
        tiles[:num_rows] = x
        products = tiles.reshape(num_tiles, self._rows_per_tile, cols) @ matrix.T
        return products.reshape(-1, matrix.shape[0])[:num_rows]

    @_quiet
    def rope(self, x: Floats, step: Step, num_heads: int, head_dim: int, rope: RopeSpec) -> Floats:
        """Rotate each pair of a head by its angle, position times frequency."""
        heads = x.reshape(-1, num_heads, head_dim)
        return rotate(heads, step.batch.positions[:, None], rope, rope.magnitude).reshape(x.shape)

    @_quiet
    def store_kv(self, key: Floats, value: Floats, kv: PagedKV, layer: int, step: Step) -> None:
        """Write keys and values into their slots."""
        heads = (len(key), kv.keys.shape[2], -1)
        kv.write(layer, step.batch.slot_mapping, key.reshape(heads), value.reshape(heads))

    @_quiet
    def attention(self, query: Floats, kv: PagedKV, layer: int, step: Step, spec: AttentionSpec) -> Floats:
        """``softmax(scale · query · keyᵀ) · value`` per token over the keys up to its own."""
        # Heads [num_kv_heads, group, head_dim]: the queries of a group share one key-value head.
        queries = query.reshape(query.shape[0], spec.num_kv_heads, -1, spec.head_dim) * np.float32(spec.scale)
        output = np.empty_like(queries)
        for sequence, ranges in enumerate(step.page_ranges):
            first, stop = step.batch.cu_seqlens[sequence : sequence + 2]
            slots = context_slots(ranges, kv.page_size)
            keys, values = map(by_head, kv.read(layer, slots))
            for token in range(first, stop):
                context_len = len(slots) - (stop - 1 - token)
                seen = slice(first_seen(context_len, spec), context_len)
                output[token] = attend(queries[token], keys[:, seen], values[:, seen], spec.softcap)
        return output.reshape(query.shape)

    @_quiet
    def gated_activation(self, gate: Floats, up: Floats, activation: Activation) -> Floats:
        """``activation(gate) * up``."""
        match activation:
            case Activation.SILU:
                gated: Floats = gate / (1 + np.exp(-gate)) * up
            case Activation.GELU_TANH:
                gated = gelu_tanh(gate) * up
        return gated

    @_quiet
    def add(self, x: Floats, y: Floats) -> Floats:
        """``x + y``."""
        return x + y

    @_quiet
    def scale(self, x: Floats, factor: float) -> Floats:
        """``factor * x``."""
        return x * np.float32(factor)

    @_quiet
    def scale_by_position(self, x: Floats, step: Step, temperature: TemperatureSpec) -> Floats:
        """``x * (1 + slope * log(1 + floor((position + offset) / interval)))``."""
        intervals = (step.batch.positions + temperature.offset) // temperature.interval
        factors = 1 + temperature.slope * np.log1p(intervals)
        return x * factors.astype(np.float32)[:, None]

    @_quiet
    def softcap(self, x: Floats, cap: float) -> Floats:
        """``cap * tanh(x / cap)``."""
        return softcap(x, cap)

    @_quiet
    def mixture(self, x: Floats, router: Floats, experts: Sequence[ExpertWeights], spec: MoeSpec) -> Floats:
        """Each expert computes the tokens that chose it; a token's sum runs over its experts in ascending order."""
        scores = self.linear(x, router)
        chosen = np.argsort(-scores, axis=-1, kind="stable")[:, : spec.num_active]
        weights = sigmoid(scores) if spec.is_sigmoid else softmax(scores)
        if spec.is_normalized:
            weights /= np.take_along_axis(weights, chosen, axis=-1).sum(axis=-1, keepdims=True)
        output = np.zeros_like(x)
        for index in np.unique(chosen):
            expert, tokens = experts[index], np.flatnonzero((chosen == index).any(axis=-1))
            weight = weights[tokens, index, None]
            taken = x[tokens] * weight if spec.is_sigmoid else x[tokens]
            gate, up = self.linear(taken, expert.gate), self.linear(taken, expert.up)
            given = self.linear(self.gated_activation(gate, up, spec.expert.activation), expert.down)
            output[tokens] += given if spec.is_sigmoid else given * weight
        return output

    def select(self, x: Floats, step: Step) -> Floats:
        """The rows whose logits are wanted."""
        return x[step.batch.logits_indices]

    def to_host(self, x: Floats) -> Floats:
        """``x``: the host is where it is."""
        return x

    def from_host(self, x: Floats) -> Floats:
        """``x``: the host is where it is."""
        return x

    def copy_pages(self, kv: PagedKV, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """Copy whole pages, all layers."""
        for pages in kv.pages():
            pages[:, target_ids] = pages[:, source_ids]

    @_quiet
    def shift_positions(self, kv: PagedKV, layer: int, page_ids: NDArray[np.int32], delta: int, rope: RopeSpec) -> None:
        """Rotate the pages' keys; their magnitude stays."""
        keys, _ = kv.pages()
        decoded = kv.key_codec.decode(keys[layer, page_ids])
        keys[layer, page_ids] = kv.key_codec.encode(rotate(decoded, np.array([delta]), rope, magnitude=1))

    @property
    def kv_format(self) -> str:
        """Keys, then values, as numpy lays them out."""
        return f"numpy 1 {self._kv_dtype}" if self._kv_dtype != np.float16 else "numpy 1"

    def read_pages(self, kv: PagedKV, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Each page's keys, then its values."""
        return kv.read_pages(page_ids)

    def write_pages(self, kv: PagedKV, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Put back what ``read_pages`` gave."""
        kv.write_pages(page_ids, data)

    def release(self) -> None:
        """Give everything back to the allocator. The arrays live as long as their handles."""
        while self._held:
            self._allocator.release(*self._held.pop())

    def _codecs(self, layout: KVLayout) -> tuple[KVCodec, KVCodec]:
        if layout.kv_type is KVType.FP16:
            return (FloatCodec(self._kv_dtype, layout.head_dim),) * 2
        return key_codec(layout.kv_type, layout.head_dim), value_codec(layout.kv_type, layout.head_dim)

    def _reserve(self, num_bytes: int, label: str) -> None:
        self._allocator.reserve(num_bytes, label)
        self._held.append((num_bytes, label))
