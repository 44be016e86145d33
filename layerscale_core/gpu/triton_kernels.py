"""A layer in five kernels of Triton, and a decode step as one recorded graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from layerscale_core.gpu import elementwise
from layerscale_core.gpu.graphs import DecodeGraphs
from layerscale_core.gpu.heads import HeadProjection, project_heads
from layerscale_core.gpu.kv_cache import KVCache
from layerscale_core.gpu.linear import Norm, gate_up, linear
from layerscale_core.gpu.matrix import DeviceMatrix
from layerscale_core.gpu.triton_elementary import RotatedQueries, Step, TritonElementaryKernels
from layerscale_core.gpu.triton_step import EagerStep
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.specs.kernels import AttentionWeights, MlpWeights
from layerscale_core.specs.memory import Allocator


class TritonKernels(TritonElementaryKernels):
    """``layerscale_core.specs.Kernels``, as much in one kernel as can be.

    Args:
        graphs: where decode steps are recorded; None: they are not.
    """

    def __init__(
        self,
        device: torch.device,
        allocator: Allocator,
        tuning: Tuning,
        dtype: torch.dtype = torch.bfloat16,
        graphs: DecodeGraphs | None = None,
    ) -> None:
        super().__init__(device, allocator, tuning, dtype)
        self._graphs = graphs
        self._biases: dict[int, tuple[Sequence[Tensor], Tensor]] = {}

    def run_step(self, step: EagerStep, compute: Callable[[Any], Tensor]) -> Tensor:
        """Replay a decode step; compute any other."""
        recorded = self._graphs.step(step.batch) if self._graphs is not None else None
        if self._graphs is None or recorded is None:
            return compute(step)
        return self._graphs.run(recorded, compute)

    def project_qkv(self, x: Tensor, weights: AttentionWeights, kv: KVCache, layer: int, step: Step) -> RotatedQueries:
        """One kernel, or one for each layout among the three matrices."""
        spec, norm = weights.spec, Norm(weights.norm, weights.eps)
        query = self._products(len(x), spec.num_heads * spec.head_dim)
        for projection in self._projections(weights):
            project_heads(
                x,
                projection,
                step.tensors,
                kv,
                layer,
                norm=norm,
                rope=self._rope(spec.rope),
                spec=spec,
                query_out=query,
                workspace=self._scratch(),
                tuning=self._tuning,
                query_norm=weights.query_norm,
                key_norm=weights.key_norm,
            )
        return RotatedQueries(query)

    def add_linear(self, x: Tensor, y: Tensor, matrix: DeviceMatrix, post_norm: Tensor | None, eps: float) -> Tensor:
        """One kernel, in the memory of x; a norm behind the product is another."""
        if post_norm is None:
            return linear(y, matrix, x, self._scratch(), self._tuning, residual=x)
        return elementwise.rms_norm(self.linear(y, matrix), post_norm, eps, x, residual=x)

    def gated_linear(self, x: Tensor, weights: MlpWeights) -> Tensor:
        """One kernel, where gate and up are of one layout."""
        gate, up = weights.gate_up.matrices
        if gate.layout != up.layout:
            normed = self.rms_norm(x, weights.norm, weights.eps)
            return self.gated_activation(self.linear(normed, gate), self.linear(normed, up), weights.spec.activation)
        out, norm = self._products(len(x), gate.shape[0]), Norm(weights.norm, weights.eps)
        return gate_up(x, gate, up, weights.spec.activation, out, tuning=self._tuning, norm=norm)

    def release(self) -> None:
        """Forget what was recorded, too."""
        super().release()
        self._workspace = None
        self._biases.clear()
        if self._graphs is not None:
            self._graphs.clear()

    def _projections(self, weights: AttentionWeights) -> list[HeadProjection]:
        head_dim = weights.spec.head_dim
        if weights.biases is None:
            return [HeadProjection(matrix, row // head_dim) for matrix, row in weights.qkv.runs]
        bias = self._bias(weights.biases)
        return [
            HeadProjection(matrix, row // head_dim, bias[row : row + matrix.shape[0]])
            for matrix, row in weights.qkv.runs
        ]

    def _bias(self, biases: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """One after the other, joined once."""
        if id(biases) not in self._biases:
            self._biases[id(biases)] = (biases, torch.cat(biases))  # kept, so that no other tuple gets its id
        return self._biases[id(biases)][1]

    def _products(self, *shape: int) -> Tensor:
        """What the next product takes, in its type."""
        return torch.empty(shape, dtype=self._product_dtype, device=self._device)
