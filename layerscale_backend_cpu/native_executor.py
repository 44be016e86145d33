"""The executor in C++, compiled once per instruction set and chosen here at run time: what it holds, and its steps."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscale_backend_cpu.native_logits import NativeLogits
from layerscale_backend_cpu.native_shapes import model_shape
from layerscale_core.errors import BackendError, OutOfMemoryError, StepError
from layerscale_core.models import DenseMatrix, Matrix, ModelSpec, QuantizedMatrix
from layerscale_core.models.spec import Shapes, layer_shapes, outer_shapes
from layerscale_core.specs import ActivationType, KVLayout, StepBatch, WeightSource

PAGE_SIZE = 16
"""Tokens per page: a vector's 16 lanes are a page's keys."""

ISA_VARIABLE = "LAYERSCALE_CPU_ISA"
"""Environment variable that forces a level: ``avx512``, ``avx2``, ``baseline``, or ``numpy`` for no native code."""

_CODES_PER_CHUNK = 1 << 20
"""Weights unpacked at once while loading, a byte each and more beside it: few enough for the caches, and for what the
allocator keeps of their memory afterwards to be some 10 MB (it was 80 MB with eight times as many)."""


def _import_level(level: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"layerscale_backend_cpu._native_{level}")
    except ImportError:
        return None


def supported_levels() -> list[str]:
    """The instruction-set levels this processor runs, best first; empty when the kernels are not compiled."""
    baseline = _import_level("baseline")
    return [] if baseline is None else list(baseline.supported_levels())


def _load_native() -> tuple[str, Any] | None:
    wanted = os.environ.get(ISA_VARIABLE, "")
    supported = supported_levels()
    if wanted == "numpy" or not supported:
        return None
    if wanted and wanted not in supported:
        raise BackendError(
            f"{ISA_VARIABLE}={wanted} is not available here; choose one of {', '.join(supported)}, numpy"
        )
    for level in [wanted] if wanted else supported:
        module = _import_level(level)
        if module is not None:
            return level, module
    raise BackendError(f"{ISA_VARIABLE}={wanted} was not compiled into this installation; unset it")


def native_isa() -> str | None:
    """The instruction-set level the native kernels run with here; None when they are not compiled or switched off.

    Raises:
        BackendError: ``LAYERSCALE_CPU_ISA`` names a level this machine or installation does not have.
    """
    native = _load_native()
    return native[0] if native is not None else None


def measure_dot_rate(num_threads: int, activation_type: ActivationType) -> float | None:
    """Multiplications and additions a second of the integer dot products that quantised matrices are multiplied with.

    On registers alone, all threads together, the best of a few runs: what no matrix product can exceed. None as for
    ``native_isa``.
    """
    native = _load_native()
    return None if native is None else native[1].measure_dot_rate(num_threads, activation_type.num_bits)


@contextmanager
def refusals_are_step_errors() -> Iterator[None]:
    """Around native calls that compute a batch."""
    try:
        yield
    except (ValueError, MemoryError) as error:
        raise StepError(f"the CPU executor refused a step: {error}") from error


class NativeModel:
    """A model on the native kernels, or some of its layers: their weights and their KV cache.

    Args:
        spec: what the model is.
        weights: read once, chunk by chunk, into the packed layout.
        kv: must have pages of 16 tokens, and as many layers as there are here.
        num_threads: threads that compute, the caller's included.
        activation_type: what products with quantised matrices round activations to.
        layers: indices of those that it holds, ascending, without embedding and head; None: the whole model.

    Raises:
        BackendError: the native kernels are not compiled.
        OutOfMemoryError: weights or cache do not fit the host's memory.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightSource,
        kv: KVLayout,
        num_threads: int,
        activation_type: ActivationType = ActivationType.INT16,
        *,
        layers: Sequence[int] | None = None,
    ) -> None:
        native = _load_native()
        if native is None:
            raise BackendError("the native kernels are not compiled into this installation")
        if kv.page_size != PAGE_SIZE:
            raise BackendError(f"the native kernels use KV pages of {PAGE_SIZE} tokens, not {kv.page_size}")
        self._page_shape = kv.page_shape
        held = range(len(spec.layers)) if layers is None else layers
        shape = model_shape(
            native[1], replace(spec, layers=tuple(spec.layers[index] for index in held)), with_ends=layers is None
        )
        try:
            self._executor: Any = native[1].Executor(shape, num_threads, activation_type.num_bits)
            self._load_weights(weights, outer_shapes(spec) if layers is None else {})
            for number, index in enumerate(held):
                self._load_weights(weights, layer_shapes(spec, index), f"layers.{index}.", f"layers.{number}.")
            self._executor.commit(kv.kv_type, kv.num_pages)
        except MemoryError:
            raise OutOfMemoryError(
                f"the model and a KV cache of {kv.total_bytes / 2**30:.2f} GiB do not fit this machine's memory; "
                "lower --context or --sessions"
            ) from None

    def _load_weights(self, weights: WeightSource, shapes: Shapes, prefix: str = "", own_prefix: str = "") -> None:
        """Take these weights, under names of which the beginning is replaced."""
        for name, shape in shapes.items():
            own_name = own_prefix + name.removeprefix(prefix)
            if len(shape) == 1:
                self._executor.add_vector(own_name, weights.vector(name))
            else:
                self._load_matrix(own_name, name, weights)

    def _load_matrix(self, own_name: str, name: str, weights: WeightSource) -> None:
        rows, cols = weights.shape(name)
        for start, part in _row_chunks(weights, name, rows, cols):
            if start == 0:
                self._add_matrix(own_name, rows, cols, part)
            if isinstance(part, QuantizedMatrix):
                self._executor.pack_codes(own_name, start, part.codes, part.scales, part.mins)
            else:
                self._executor.pack_floats(own_name, start, np.ascontiguousarray(part.data))
            weights.drop_cache()  # at once: the file and what is packed of it would count twice

    def _add_matrix(self, name: str, rows: int, cols: int, part: Matrix) -> None:
        if isinstance(part, DenseMatrix):
            kind = "bfloat16" if part.data.dtype == np.uint16 else part.data.dtype.name
            self._executor.add_floats(name, rows, cols, kind)
            return
        codebook = [] if part.codebook is None else part.codebook.tolist()
        self._executor.add_codes(
            name, rows, cols, part.bits, part.group_size, part.mins is not None, float(part.zero), codebook
        )

    @property
    def allocated_bytes(self) -> int:
        """Bytes of packed weights and KV cache."""
        return int(self._executor.allocated_bytes)

    def copy_pages(self, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """See ``layerscale_core.specs.Executor.copy_pages``."""
        self._executor.copy_pages(source_ids, target_ids)

    def shift_positions(self, page_ids: NDArray[np.int32], delta: int) -> None:
        """See ``layerscale_core.specs.Executor.shift_positions``."""
        self._executor.shift_positions(page_ids, delta)

    @property
    def kv_fingerprint(self) -> str:
        """The same at every instruction-set level, whose pages are alike."""
        return f"native 1, {self._page_shape}"

    def read_pages(self, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """See ``layerscale_core.specs.Executor.read_pages``."""
        content: NDArray[np.uint8] = self._executor.read_pages(page_ids)
        return content

    def write_pages(self, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """See ``layerscale_core.specs.Executor.write_pages``."""
        self._executor.write_pages(page_ids, data)

    def close(self) -> None:
        """Free weights and cache and end the threads."""
        self._executor = None


class NativeExecutor(NativeModel):
    """``layerscale_core.specs.Executor`` over the native kernels."""

    def step(self, batch: StepBatch) -> NativeLogits:
        """See ``layerscale_core.specs.Executor.step``."""
        with refusals_are_step_errors():
            return NativeLogits(*self._executor.step(batch))


def _row_chunks(weights: WeightSource, name: str, rows: int, cols: int) -> Iterator[tuple[int, Matrix]]:
    """The matrix in pieces of whole panels of 16 rows."""
    step = max(16, _CODES_PER_CHUNK // cols // 16 * 16)
    for start in range(0, rows, step):
        yield start, weights.matrix(name, start, min(rows, start + step))
