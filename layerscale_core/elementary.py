"""The coarser operations of the kernel spec, composed of its elementary ones: for kernels that fuse nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from layerscale_core.models import Matrix
from layerscale_core.specs.executor import StepLogits
from layerscale_core.specs.kernels import Array, AttentionWeights, Kernels, MlpWeights


class ElementaryKernels:
    """To inherit from; see ``Kernels`` for what each operation promises. A stack is the tuple of its matrices."""

    def load_stack(self: Kernels, matrices: Sequence[Matrix]) -> Any:
        """Each matrix for itself."""
        return tuple(self.load_matrix(matrix) for matrix in matrices)

    def load_router(self: Kernels, matrix: Matrix) -> Any:
        """As any matrix: for kernels whose products are in float32."""
        return self.load_matrix(matrix)

    def run_step(self, step: Any, compute: Callable[[Any], Array]) -> Array:
        """Compute, and record nothing."""
        return compute(step)

    def step_logits(self: Kernels, x: Array) -> StepLogits:
        """All of them, on the host."""
        return self.to_host(x)

    def project_qkv(self: Kernels, x: Array, weights: AttentionWeights, kv: Any, layer: int, step: Any) -> Array:
        """One operation after the other."""
        spec, eps = weights.spec, weights.eps
        x = self.rms_norm(x, weights.norm, eps)
        query, key, value = (self.linear(x, matrix) for matrix in weights.qkv)
        if weights.biases is not None:
            query, key, value = map(self.add, (query, key, value), weights.biases)
        if weights.query_norm is not None:
            query = self.rms_norm(query, weights.query_norm, eps)
        if weights.key_norm is not None:
            key = self.rms_norm(key, weights.key_norm, eps)
        query = self.rope(query, step, spec.num_heads, spec.head_dim, spec.rope)
        key = self.rope(key, step, spec.num_kv_heads, spec.head_dim, spec.rope)
        self.store_kv(key, value, kv, layer, step)
        return query

    def gated_linear(self: Kernels, x: Array, weights: MlpWeights) -> Array:
        """One operation after the other."""
        x = self.rms_norm(x, weights.norm, weights.eps)
        gate, up = (self.linear(x, matrix) for matrix in weights.gate_up)
        return self.gated_activation(gate, up, weights.spec.activation)

    def add_linear(self: Kernels, x: Array, y: Array, matrix: Any, post_norm: Any | None, eps: float) -> Array:
        """One operation after the other."""
        y = self.linear(y, matrix)
        return self.add(x, y if post_norm is None else self.rms_norm(y, post_norm, eps))
