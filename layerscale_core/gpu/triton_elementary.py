"""The elementary operations in Triton, each a kernel of its own, over weights and pages as the kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscale_core.gpu import elementwise, kv_cache
from layerscale_core.gpu.attention import attention
from layerscale_core.gpu.device_kernels import DeviceKernels
from layerscale_core.gpu.graphs import DecodeStep
from layerscale_core.gpu.kv_cache import KVCache, allocate_cache
from layerscale_core.gpu.linear import linear
from layerscale_core.gpu.matrix import DeviceMatrix, device_matrix_bytes, pack
from layerscale_core.gpu.rope import DeviceRope, device_rope
from layerscale_core.gpu.sampling import argmax
from layerscale_core.gpu.stack import MatrixStack, joined
from layerscale_core.gpu.transfer import to_device
from layerscale_core.gpu.triton_memory import NUM_COUNTERS, NUM_PARTIALS, triton_memory_needs
from layerscale_core.gpu.triton_step import EagerStep
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.gpu.workspace import Workspace, allocate_workspace
from layerscale_core.models import Activation, AttentionSpec, DenseMatrix, Matrix, ModelSpec, RopeSpec, TemperatureSpec
from layerscale_core.specs.executor import KVLayout, StepBatch
from layerscale_core.specs.memory import Allocator, MemoryNeeds, StepLimits
from layerscale_core.specs.model_format import WeightSource

Step = EagerStep | DecodeStep

_PAGES_AT_A_TIME = 16
"""That cross between host and device: two megabytes each, for 8B-shaped models in 16 bits."""


@dataclass(frozen=True, slots=True)
class RotatedQueries:
    """Queries that are already rotated as a cache of codes has its keys."""

    values: Tensor


class TritonElementaryKernels(DeviceKernels):
    """What ``layerscale_core.gpu.triton_kernels`` builds on.

    The residual stream and the logits are float32: to round them in every layer would be the larger part of the error.

    Args:
        tuning: of the device's architecture.
        dtype: what products are computed in.
    """

    def __init__(
        self, device: torch.device, allocator: Allocator, tuning: Tuning, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        super().__init__(device, allocator, torch.float32)
        self._product_dtype = dtype
        self._tuning = tuning
        self._ropes: dict[RopeSpec, DeviceRope] = {}
        self._workspace: Workspace | None = None

    def memory_needs(self, spec: ModelSpec, weights: WeightSource, limits: StepLimits) -> MemoryNeeds:
        """Codes as they are in the file, and activations."""
        return triton_memory_needs(spec, weights, limits, self._product_dtype)

    def load_matrix(self, matrix: Matrix) -> DeviceMatrix:
        """Codes stay codes; floats become the products' type."""
        return self._pack(matrix, self._product_dtype)

    def load_stack(self, matrices: Sequence[Matrix]) -> MatrixStack:
        """Neighbours of one layout become one matrix."""
        return MatrixStack.of(
            [self.load_matrix(run) for run in joined(matrices)], [matrix.shape[0] for matrix in matrices]
        )

    def load_router(self, matrix: Matrix) -> DeviceMatrix:
        """Floats in float32, whose product is float32 too."""
        return self._pack(DenseMatrix(matrix.dequantize()), torch.float32)

    def load_vector(self, vector: NDArray[np.float32]) -> Tensor:
        """Float32."""
        with self._reserved(vector.nbytes, "weights"):
            return torch.tensor(vector, device=self._device)

    def allocate_kv(self, layout: KVLayout) -> KVCache:
        """Zeroed pages."""
        with self._reserved(layout.total_bytes, "KV cache"):
            return allocate_cache(layout, self._device)

    def begin_step(self, batch: StepBatch) -> EagerStep:
        """The batch, which is brought to the device when it is not replayed."""
        return EagerStep(batch, self._device)

    def embed(self, table: DeviceMatrix, step: Step) -> Tensor:
        """Rows of the embedding matrix."""
        token_ids = step.tensors.token_ids
        return elementwise.embed(token_ids, table, self._floats(len(token_ids), table.shape[1]))

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """In float32."""
        return elementwise.rms_norm(x, weight, eps, torch.empty_like(x))

    def linear(self, x: Tensor, matrix: DeviceMatrix) -> Tensor:
        """``x @ matrix.T``, summed in float32."""
        return linear(x, matrix, self._floats(len(x), matrix.shape[0]), self._scratch(), self._tuning)

    def rope(self, x: Tensor, step: Step, num_heads: int, head_dim: int, rope: RopeSpec) -> Tensor:  # noqa: ARG002
        """Angles in float64."""
        return elementwise.rope_heads(x, step.tensors.positions, head_dim, self._rope(rope), torch.empty_like(x))

    def store_kv(self, key: Tensor, value: Tensor, kv: KVCache, layer: int, step: Step) -> None:
        """Write keys and values into their slots."""
        kv_cache.store(key, value, kv, layer, step.tensors.slots)

    def attention(
        self, query: Tensor | RotatedQueries, kv: KVCache, layer: int, step: Step, spec: AttentionSpec
    ) -> Tensor:
        """One kernel: programs that share a sequence leave their parts to the last of them.

        The fused operation's queries are written over, so that rows which only fill a recorded step stay finite.
        """
        if isinstance(query, RotatedQueries):
            rotated = out = query.values
        else:
            rotated = query if kv.rotation is None else kv_cache.rotate_heads(query, kv, torch.empty_like(query))
            out = torch.empty_like(query)
        return attention(
            rotated,
            kv,
            layer,
            step.for_attention(spec, self._tuning),
            spec,
            out=out,
            workspace=self._scratch(),
            tuning=self._tuning,
            dtype=self._product_dtype,
        )

    def gated_activation(self, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        """``activation(gate) * up``."""
        return elementwise.gated_activation(gate, up, activation, gate)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """``x + y``, in the memory of x."""
        return x.add_(y)

    def scale(self, x: Tensor, factor: float) -> Tensor:
        """``factor * x``, in the memory of x."""
        return x.mul_(factor)

    def scale_by_position(
        self, x: Tensor | RotatedQueries, step: Step, temperature: TemperatureSpec
    ) -> Tensor | RotatedQueries:
        """By factors found in float64; a rotation does not mind them."""
        if isinstance(x, RotatedQueries):
            return RotatedQueries(self.scaled_by_position(x.values, step.tensors.positions, temperature))
        return self.scaled_by_position(x, step.tensors.positions, temperature)

    def softcap(self, x: Tensor, cap: float) -> Tensor:
        """``cap * tanh(x / cap)``, in the memory of x."""
        return x.div_(cap).tanh_().mul_(cap)

    def select(self, x: Tensor, step: Step) -> Tensor:
        """The rows whose logits are wanted."""
        return step.select(x)

    def find_likeliest(self, logits: Tensor) -> Tensor:
        """One kernel."""
        found = torch.empty((len(logits), 2), dtype=torch.int32, device=self._device)
        return argmax(logits, found, self._scratch())

    def copy_pages(self, kv: KVCache, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """Copy whole pages, all layers."""
        kv_cache.copy_pages(kv, self._indices(source_ids), self._indices(target_ids))

    def shift_positions(self, kv: KVCache, layer: int, page_ids: NDArray[np.int32], delta: int, rope: RopeSpec) -> None:
        """Rotate one layer's keys, in place."""
        kv_cache.shift_positions(kv, layer, self._indices(page_ids), delta, self._rope(rope))

    @property
    def kv_format(self) -> str:
        """Codes by head, scales apart from them."""
        return "triton 1"

    def read_pages(self, kv: KVCache, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Keys and values, with their scales; a few pages at a time, so that the device needs little memory for it."""
        content = np.empty((len(page_ids), kv.page_bytes), np.uint8)
        for part in _page_runs(page_ids):
            content[part] = kv_cache.read_pages(kv, self._indices(page_ids[part])).cpu().numpy()
        return content

    def write_pages(self, kv: KVCache, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Put back what ``read_pages`` gave, a few pages at a time."""
        if data.shape != (len(page_ids), kv.page_bytes):
            raise ValueError(
                f"{data.shape} bytes are not the content of {len(page_ids)} pages of {kv.page_bytes} bytes"
            )
        for part in _page_runs(page_ids):
            kv_cache.write_pages(kv, self._indices(page_ids[part]), torch.tensor(data[part]).to(self._device))

    def _pack(self, matrix: Matrix, dtype: torch.dtype) -> DeviceMatrix:
        with self._reserved(device_matrix_bytes(matrix, *matrix.shape, dtype), "weights"):
            return pack(matrix, self._device, dtype)

    def _floats(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self._device)

    def _rope(self, rope: RopeSpec) -> DeviceRope:
        if rope not in self._ropes:
            self._ropes[rope] = device_rope(rope, self._device)
        return self._ropes[rope]

    def _scratch(self) -> Workspace:
        """One for all kernels: they run one after the other."""
        if self._workspace is None:
            self._workspace = allocate_workspace(self._device, NUM_PARTIALS, NUM_COUNTERS)
        return self._workspace

    def _indices(self, page_ids: NDArray[np.int32]) -> Tensor:
        return to_device([page_ids.astype(np.int64)], self._device)[0]


def _page_runs(page_ids: NDArray[np.int32]) -> list[slice]:
    return [slice(first, first + _PAGES_AT_A_TIME) for first in range(0, len(page_ids), _PAGES_AT_A_TIME)]
