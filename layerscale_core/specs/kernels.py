"""The kernels a backend supplies when it lets core write the forward pass (``layerscale_core.forward``).

Arrays are the backend's own kind (numpy, torch …); core passes them from kernel to kernel and never looks inside. The
compute dtype is the backend's choice; ``to_host`` is float32.

A layer is four operations and attention between them: ``project_qkv``, ``attention``, ``add_linear``, ``gated_linear``
and ``add_linear`` again. A backend fuses as much of each as it can; ``layerscale_core.elementary`` composes them of the
elementary ones for a backend that fuses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from layerscale_core.models import (
    Activation,
    AttentionSpec,
    Matrix,
    MlpSpec,
    ModelSpec,
    MoeSpec,
    RopeSpec,
    TemperatureSpec,
)
from layerscale_core.specs.executor import KVLayout, StepBatch, StepLogits
from layerscale_core.specs.memory import MemoryNeeds, StepLimits
from layerscale_core.specs.model_format import WeightSource

Array = Any
"""An array of the backend's own kind."""


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """Handles of one expert's matrices."""

    gate: Any
    up: Any
    down: Any


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    """What a layer's attention is, and handles of what it takes; None: the layer has no such weight.

    Attributes:
        eps: of its norms.
        norm: of its inputs.
        qkv: the stack of query, key and value.
        biases: of query, key and value.
        query_norm, key_norm: of each head.
        output: the projection back.
        post_norm: of what that gives.
    """

    spec: AttentionSpec
    eps: float
    norm: Any
    qkv: Any
    biases: tuple[Any, Any, Any] | None
    query_norm: Any | None
    key_norm: Any | None
    output: Any
    post_norm: Any | None


@dataclass(frozen=True, slots=True)
class MlpWeights:
    """What a layer's gated MLP is, and handles of what it takes.

    Attributes:
        eps: of its norms.
        norm: of its inputs.
        gate_up: the stack of gate and up.
        post_norm: of what ``down`` gives; None: the layer has none.
    """

    spec: MlpSpec
    eps: float
    norm: Any
    gate_up: Any
    down: Any
    post_norm: Any | None


class Kernels(Protocol):
    """One operation a method; [..] are shapes, T the number of tokens in the step.

    They may be given some of a model's layers only, with a KV cache of as many.
    """

    def memory_needs(self, spec: ModelSpec, weights: WeightSource, limits: StepLimits) -> MemoryNeeds:
        """What core's forward pass over these kernels takes for a model, from its description alone; asked first.

        The weights must not be read: they may be missing from the file when a plan is all that is wanted. A matrix's
        layout shows in an empty slice of it, ``weights.matrix(name, 0, 0)``.
        """
        ...

    def load_matrix(self, matrix: Matrix) -> Any:
        """Take a weight matrix onto the device in the backend's own layout; returns its handle.

        Raises:
            OutOfMemoryError: the device cannot hold it.
        """
        ...

    def load_stack(self, matrices: Sequence[Matrix]) -> Any:
        """Take matrices over the same inputs, which one operation below multiplies together; returns their handle.

        They may be of different layouts.

        Raises:
            OutOfMemoryError: the device cannot hold them.
        """
        ...

    def load_router(self, matrix: Matrix) -> Any:
        """Take a mixture's router onto the device; returns its handle, which ``mixture`` alone takes.

        Its weights and its product are to be float32, whatever others are: rounded scores pick other experts where two
        score nearly alike.

        Raises:
            OutOfMemoryError: the device cannot hold it.
        """
        ...

    def load_vector(self, vector: NDArray[np.float32]) -> Any:
        """Take a weight vector [n] onto the device; returns its handle."""
        ...

    def allocate_kv(self, layout: KVLayout) -> Any:
        """Commit the KV cache, zeroed; returns its handle.

        Raises:
            OutOfMemoryError: the device cannot hold it.
        """
        ...

    def begin_step(self, batch: StepBatch) -> Any:
        """Bring a batch's indices to the device once a step; returns what the kernels below take as ``step``."""
        ...

    def run_step(self, step: Any, compute: Callable[[Any], Array]) -> Array:
        """``compute(step)``: all that a step computes on this device, from tokens to logits [num_logits, vocab_size].

        Not called where some layers are computed elsewhere or which experts compute depends on the tokens, so that a
        backend may record the operations once and replay them for every later step of the same shape. What is returned
        holds until the next step.
        """
        ...

    def embed(self, table: Any, step: Any) -> Array:
        """Rows of the embedding matrix for the step's tokens: [T, hidden]."""
        ...

    def rms_norm(self, x: Array, weight: Any, eps: float) -> Array:
        """``x / sqrt(mean(x²) + eps) * weight`` (arXiv:1910.07467); x is not modified.

        The weight's size divides the rows of x: each part of that size, such as a head, is normalised by itself.
        """
        ...

    def linear(self, x: Array, matrix: Any) -> Array:
        """``x @ matrix.T``: [T, cols] to [T, rows]."""
        ...

    def rope(self, x: Array, step: Any, num_heads: int, head_dim: int, rope: RopeSpec) -> Array:
        """Rotate queries or keys [T, num_heads * head_dim] to the step's positions."""
        ...

    def store_kv(self, key: Array, value: Array, kv: Any, layer: int, step: Any) -> None:
        """Write the step's keys and values [T, num_kv_heads * head_dim] into their slots, in place."""
        ...

    def attention(self, query: Array, kv: Any, layer: int, step: Any, spec: AttentionSpec) -> Array:
        """Causal attention over each sequence's pages: [T, num_heads * head_dim] to the same shape.

        Windows and chunks count keys, not positions: where a sequence's middle was dropped, a window holds as many as
        ever, and chunks begin elsewhere.
        """
        ...

    def project_qkv(self, x: Array, weights: AttentionWeights, kv: Any, layer: int, step: Any) -> Array:
        """What comes before attention: norm, query, key and value of x [T, hidden], their biases, norms and rotation.

        Keys and values are written into the step's slots.

        Returns:
            The queries [T, num_heads * head_dim]; x is not modified.
        """
        ...

    def gated_linear(self, x: Array, weights: MlpWeights) -> Array:
        """``activation(gate(norm(x))) * up(norm(x))``: [T, hidden] to [T, intermediate_size]; x is not modified."""
        ...

    def add_linear(self, x: Array, y: Array, matrix: Any, post_norm: Any | None, eps: float) -> Array:
        """``x + norm(linear(y, matrix))``, without the norm if there is none; may reuse the memory of x."""
        ...

    def gated_activation(self, gate: Array, up: Array, activation: Activation) -> Array:
        """``activation(gate) * up``, elementwise."""
        ...

    def add(self, x: Array, y: Array) -> Array:
        """``x + y``; may reuse the memory of x. A vector y, such as a bias, is added to every row."""
        ...

    def scale(self, x: Array, factor: float) -> Array:
        """``factor * x``; may reuse the memory of x."""
        ...

    def scale_by_position(self, x: Array, step: Any, temperature: TemperatureSpec) -> Array:
        """Each token's row of x by the factor of its position; see ``TemperatureSpec``."""
        ...

    def softcap(self, x: Array, cap: float) -> Array:
        """``cap * tanh(x / cap)``; may reuse the memory of x."""
        ...

    def mixture(self, x: Array, router: Any, experts: Sequence[ExpertWeights], spec: MoeSpec) -> Array:
        """A mixture of experts over x [T, hidden]; see ``MoeSpec``. Of two equal scores the first expert's wins.

        The shared expert is not among them: core computes and adds it.
        """
        ...

    def select(self, x: Array, step: Any) -> Array:
        """The rows of x whose logits are wanted: [num_logits, hidden]."""
        ...

    def to_host(self, x: Array) -> NDArray[np.float32]:
        """Bring a result to the host as float32; it holds until the next call."""
        ...

    def step_logits(self, x: Array) -> StepLogits:
        """A step's logits as the executor returns them: ``to_host(x)``, or what stands for them on the device."""
        ...

    def from_host(self, x: NDArray[np.float32]) -> Array:
        """Take activations [T, hidden] from the host, where other layers were computed; may share their memory."""
        ...

    def copy_pages(self, kv: Any, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """Copy whole pages of the KV cache, all layers."""
        ...

    def shift_positions(self, kv: Any, layer: int, page_ids: NDArray[np.int32], delta: int, rope: RopeSpec) -> None:
        """Rotate one layer's keys of whole pages by ``delta`` positions, in place.

        Cached keys carry the RoPE's magnitude already, so this rotates with magnitude 1.
        """
        ...

    @property
    def kv_format(self) -> str:
        """Name and version of how the cache lies in memory: another one wherever pages read before would not fit."""
        ...

    def read_pages(self, kv: Any, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The content of whole pages, all layers: [num_pages, bytes_per_page] on the host."""
        ...

    def write_pages(self, kv: Any, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Put back what ``read_pages`` gave, into any pages.

        Raises:
            ValueError: the data has another shape; no page is changed.
        """
        ...

    def release(self) -> None:
        """Give back all that was loaded or allocated. Idempotent."""
        ...
