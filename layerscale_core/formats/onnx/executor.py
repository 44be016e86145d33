"""An executor over a graph that onnxruntime runs: pages of our own, gathered before a run and extended after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import StepError, UnsupportedModelError
from layerscale_core.formats.onnx.decoder import LOGITS, MASK, POSITIONS, TOKENS, Decoder
from layerscale_core.models import ModelSpec
from layerscale_core.reference import ReferenceKernels
from layerscale_core.reference.arrays import Floats
from layerscale_core.reference.kv_cache import context_slots
from layerscale_core.reference.rope import rotate
from layerscale_core.specs.executor import KVLayout, StepBatch
from layerscale_core.specs.memory import Allocator

_PROBE_TOKENS = np.arange(1, 9)
_PROBE_DELTA = 64
_MAX_ROTATION_ERROR = 0.05
"""Of keys, in units of their spread: far above what 16 bits or quantised activations lose, far below a wrong angle."""


class GraphSession(Protocol):
    """What is used of ``onnxruntime.InferenceSession``."""

    def run(self, output_names: list[str], input_feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of those names."""
        ...


class OnnxExecutor:
    """``layerscale_core.specs.Executor`` over a decoder's graph.

    The pages are in host memory and are the truth. A graph wants a sequence's past in one piece, so each step gathers
    it, which costs time and memory in proportion to the context. Sequences are run one by one: none has an influence
    on another's result, and none is padded to another's length.

    Args:
        weights_bytes: what the session's weights take of the allocator's memory.

    Raises:
        OutOfMemoryError: the cache does not fit.
        UnsupportedModelError: the graph keeps its keys in another way than the configuration says.
    """

    def __init__(
        self,
        session: GraphSession,
        decoder: Decoder,
        spec: ModelSpec,
        kv: KVLayout,
        allocator: Allocator,
        *,
        weights_bytes: int,
    ) -> None:
        self._session: GraphSession | None = session
        self._decoder = decoder
        self._spec = spec
        self._layout = kv
        self._kernels = ReferenceKernels(allocator)
        self._allocator = allocator
        self._weights_bytes = 0
        try:
            self._kv = self._kernels.allocate_kv(kv)
            allocator.reserve(weights_bytes, "weights")
            self._weights_bytes = weights_bytes
            self._check_rotation()
        except BaseException:
            self.close()
            raise

    def step(self, batch: StepBatch) -> NDArray[np.float32]:
        """Compute a batch; see ``Executor.step``."""
        try:
            return self._step(batch)
        except Exception as error:
            raise StepError(f"the graph failed: {type(error).__name__}: {error}") from error

    def copy_pages(self, source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        """Copy whole pages, all layers."""
        self._kernels.copy_pages(self._kv, source_ids, target_ids)

    def shift_positions(self, page_ids: NDArray[np.int32], delta: int) -> None:
        """Rotate the keys of whole pages, each layer by its own RoPE."""
        for index, layer in enumerate(self._spec.layers):
            self._kernels.shift_positions(self._kv, index, page_ids, delta, layer.attention.rope)

    @property
    def kv_fingerprint(self) -> str:
        """How the pages lie in memory, and the page's shape."""
        return f"onnx 1: {self._kernels.kv_format}, {self._layout.page_shape}"

    def read_pages(self, page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The content of whole pages."""
        return self._kernels.read_pages(self._kv, page_ids)

    def write_pages(self, page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Put back what ``read_pages`` gave."""
        self._kernels.write_pages(self._kv, page_ids, data)

    def close(self) -> None:
        """Free the session and the KV cache. Idempotent."""
        self._session = None
        self._kernels.release()
        self._allocator.release(self._weights_bytes, "weights")
        self._weights_bytes = 0

    def _step(self, batch: StepBatch) -> NDArray[np.float32]:
        step = self._kernels.begin_step(batch)
        logits = np.empty((len(batch.logits_indices), self._spec.vocab_size), np.float32)
        for sequence, ranges in enumerate(step.page_ranges):
            first, stop = batch.cu_seqlens[sequence : sequence + 2]
            past_slots = context_slots(ranges, self._layout.page_size)[: first - stop]
            outputs = self._run(batch.token_ids[first:stop], batch.positions[first:stop], past_slots)
            for layer, (keys, values) in enumerate(self._new_keys_and_values(outputs, stop - first)):
                self._kv.write(layer, batch.slot_mapping[first:stop], keys, values)
            wanted = (batch.logits_indices >= first) & (batch.logits_indices < stop)
            logits[wanted] = outputs[LOGITS][0, batch.logits_indices[wanted] - first]
        return logits

    def _run(
        self, token_ids: NDArray[np.integer], positions: NDArray[np.integer], past_slots: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """The graph's outputs for a sequence's next tokens."""
        assert self._session is not None, "the executor is closed"
        decoder = self._decoder
        feeds: dict[str, NDArray[Any]] = {
            TOKENS: token_ids[None].astype(np.int64),
            MASK: np.ones((1, len(past_slots) + len(token_ids)), np.int64),
            POSITIONS: positions[None].astype(np.int64),
        }
        for layer, names in enumerate(decoder.past):
            for name, vectors in zip(names, self._kv.read(layer, past_slots), strict=True):
                feeds[name] = np.ascontiguousarray(vectors.swapaxes(0, 1)[None], decoder.dtype)
        wanted = [LOGITS, *(name for names in decoder.present for name in names)]
        return dict(zip(wanted, self._session.run(wanted, feeds), strict=True))

    def _new_keys_and_values(self, outputs: Mapping[str, NDArray[Any]], num_tokens: int) -> list[tuple[Floats, Floats]]:
        """Of each layer those of the latest tokens, [num_tokens, num_kv_heads, head_dim]."""
        return [
            (_latest(outputs[key_name], num_tokens), _latest(outputs[value_name], num_tokens))
            for key_name, value_name in self._decoder.present
        ]

    def _check_rotation(self) -> None:
        """Compute a few tokens at two places and see whether one's keys are the other's, rotated by our RoPE."""
        nothing = np.empty(0, np.int64)
        tokens = _PROBE_TOKENS % self._spec.vocab_size
        positions = np.arange(len(tokens))
        there = self._run(tokens, positions + _PROBE_DELTA, nothing)
        here = self._run(tokens, positions, nothing)
        pairs = zip(
            self._new_keys_and_values(here, len(tokens)), self._new_keys_and_values(there, len(tokens)), strict=True
        )
        for layer, ((keys, _), (moved, _)) in zip(self._spec.layers, pairs, strict=True):
            rotated = rotate(keys, np.array([_PROBE_DELTA]), layer.attention.rope, magnitude=1)
            if not np.square(rotated - moved).mean() <= np.square(_MAX_ROTATION_ERROR * moved).mean():
                raise UnsupportedModelError(
                    "the graph does not keep its keys rotated as its configuration says, so that a session's old data "
                    "could not be dropped"
                )


def _latest(vectors: NDArray[Any], num_tokens: int) -> Floats:
    return vectors[0, :, -num_tokens:].swapaxes(0, 1).astype(np.float32)
