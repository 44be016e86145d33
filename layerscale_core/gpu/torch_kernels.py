"""Every kernel in plain torch: what a device without kernels of its own computes with, and what others are built on."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscale_core.gpu.device_kernels import DeviceKernels
from layerscale_core.gpu.torch_attention import attend
from layerscale_core.gpu.torch_kv import PagedKV
from layerscale_core.gpu.torch_rope import cos_sin, frequencies, rotate
from layerscale_core.gpu.torch_step import TorchStep
from layerscale_core.models import AttentionSpec, Matrix, ModelSpec, RopeSpec, TemperatureSpec
from layerscale_core.models.spec import is_router, weight_shapes
from layerscale_core.reference import reference_memory_needs
from layerscale_core.specs.executor import KVLayout, StepBatch
from layerscale_core.specs.memory import Allocator, MemoryNeeds, StepLimits
from layerscale_core.specs.model_format import WeightSource


class TorchKernels(DeviceKernels):
    """``layerscale_core.specs.Kernels`` on any device that torch knows. Weights are dequantised when they are loaded.

    Args:
        device: where everything lives.
        allocator: counts every weight and the KV cache.
        dtype: of weights and activations.
        rows_per_product: rows of activations in one matrix product, the last one padded; None: all at once. A BLAS
            picks its summation order by shape, so only a fixed number makes a token's result independent of others.
    """

    def __init__(
        self,
        device: torch.device,
        allocator: Allocator,
        dtype: torch.dtype = torch.float32,
        rows_per_product: int | None = None,
    ) -> None:
        super().__init__(device, allocator, dtype)
        self._rows_per_product = rows_per_product
        self._inv_freq: dict[RopeSpec, Tensor] = {}

    def memory_needs(self, spec: ModelSpec, weights: WeightSource, limits: StepLimits) -> MemoryNeeds:  # noqa: ARG002
        """Every weight in the compute dtype but routers; intermediate results are float32 as the reference's."""
        sizes = {
            name: math.prod(shape) * (torch.float32 if is_router(name) else self._dtype).itemsize
            for name, shape in weight_shapes(spec).items()
        }
        return MemoryNeeds(sizes, reference_memory_needs(spec, limits).workspace_bytes)

    def load_matrix(self, matrix: Matrix) -> Tensor:
        """A weight matrix [rows, cols]."""
        return self._load(matrix.dequantize(), self._dtype)

    def load_router(self, matrix: Matrix) -> Tensor:
        """In float32."""
        return self._load(matrix.dequantize(), torch.float32)

    def load_vector(self, vector: NDArray[np.float32]) -> Tensor:
        """A weight vector [n]."""
        return self._load(vector, self._dtype)

    def allocate_kv(self, layout: KVLayout) -> PagedKV:
        """Zeroed keys and values."""
        with self._reserved(layout.total_bytes, "KV cache"):
            return PagedKV.zeros(layout, self._device)

    def begin_step(self, batch: StepBatch) -> TorchStep:
        """Bring the batch to the device."""
        return TorchStep.of(batch, self._device)

    def embed(self, table: Tensor, step: TorchStep) -> Tensor:
        """Rows of the embedding matrix."""
        return table[step.token_ids]

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """In float32."""
        parts = x.float().unflatten(-1, (-1, weight.numel()))
        normed = parts * (parts.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.float()
        result: Tensor = normed.reshape(x.shape).to(self._dtype)
        return result

    def linear(self, x: Tensor, matrix: Tensor) -> Tensor:
        """``x @ matrix.T``."""
        if self._rows_per_product is None:
            return x @ matrix.T
        num_rows = len(x)
        tiles = torch.nn.functional.pad(x, (0, 0, 0, -num_rows % self._rows_per_product))
        return torch.cat([tile @ matrix.T for tile in tiles.split(self._rows_per_product)])[:num_rows]

    def rope(self, x: Tensor, step: TorchStep, num_heads: int, head_dim: int, rope: RopeSpec) -> Tensor:
        """In float32."""
        if rope not in step.rotations:
            step.rotations[rope] = cos_sin(step.positions, self._frequencies(rope), rope.magnitude)
        heads = x.float().unflatten(-1, (num_heads, head_dim))
        return rotate(heads, *step.rotations[rope], rope).reshape(x.shape).to(self._dtype)

    def store_kv(self, key: Tensor, value: Tensor, kv: PagedKV, layer: int, step: TorchStep) -> None:
        """Write keys and values into their slots."""
        heads = (kv.keys.shape[2], -1)
        kv.keys[layer, step.slot_mapping] = kv.key_codec.encode(key.float().unflatten(-1, heads))
        kv.values[layer, step.slot_mapping] = kv.value_codec.encode(value.float().unflatten(-1, heads))

    def attention(self, query: Tensor, kv: PagedKV, layer: int, step: TorchStep, spec: AttentionSpec) -> Tensor:
        """Token by token: each product has a shape that the token's own context alone decides."""
        return attend(query, kv, layer, step, spec).to(self._dtype)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """``x + y``."""
        return x + y

    def scale(self, x: Tensor, factor: float) -> Tensor:
        """``factor * x``."""
        return x * factor

    def scale_by_position(self, x: Tensor, step: TorchStep, temperature: TemperatureSpec) -> Tensor:
        """By factors found in float64."""
        return self.scaled_by_position(x, step.positions, temperature)

    def softcap(self, x: Tensor, cap: float) -> Tensor:
        """``cap * tanh(x / cap)``."""
        return (x / cap).tanh() * cap

    def select(self, x: Tensor, step: TorchStep) -> Tensor:
        """The rows whose logits are wanted."""
        return x[step.logits_indices]

    def copy_pages(self, kv: PagedKV, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """Copy whole pages, all layers."""
        source, target = self._indices(source_ids), self._indices(target_ids)
        for pages in kv.pages():
            pages[:, target] = pages[:, source]

    def shift_positions(self, kv: PagedKV, layer: int, page_ids: NDArray[np.int32], delta: int, rope: RopeSpec) -> None:
        """Rotate the pages' keys; their magnitude stays."""
        pages, ids = kv.pages()[0][layer], self._indices(page_ids)
        heads = kv.key_codec.decode(pages[ids]).flatten(0, 1)
        cos, sin = cos_sin(torch.tensor([delta], device=self._device), self._frequencies(rope), magnitude=1)
        pages[ids] = kv.key_codec.encode(rotate(heads, cos, sin, rope)).unflatten(0, (-1, kv.page_size))

    @property
    def kv_format(self) -> str:
        """Keys, then values, as the reference's codecs write them."""
        return "torch 1"

    def read_pages(self, kv: PagedKV, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Each page's keys, then its values."""
        ids = self._indices(page_ids)
        parts = [pages[:, ids].transpose(0, 1).flatten(1) for pages in kv.pages()]
        content: NDArray[np.uint8] = torch.cat(parts, 1).cpu().numpy()
        return content

    def write_pages(self, kv: PagedKV, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Put back what ``read_pages`` gave."""
        all_pages, ids = kv.pages(), self._indices(page_ids)
        sizes = [pages[:, 0].numel() for pages in all_pages]
        if data.shape != (len(page_ids), sum(sizes)):
            raise ValueError(f"{data.shape} bytes are not the content of {len(page_ids)} pages of {sum(sizes)} bytes")
        content = torch.from_numpy(data).to(self._device)
        for pages, part in zip(all_pages, content.split(sizes, 1), strict=True):
            pages[:, ids] = part.reshape(len(page_ids), pages.shape[0], *pages.shape[2:]).transpose(0, 1)

    def _load(self, weights: NDArray[np.float32], dtype: torch.dtype) -> Tensor:
        with self._reserved(weights.size * dtype.itemsize, "weights"):
            return torch.from_numpy(weights).to(self._device, dtype, copy=True)

    def _frequencies(self, rope: RopeSpec) -> Tensor:
        if rope not in self._inv_freq:
            self._inv_freq[rope] = frequencies(rope, self._device)
        return self._inv_freq[rope]

    def _indices(self, page_ids: NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(page_ids).to(self._device, torch.int64)
