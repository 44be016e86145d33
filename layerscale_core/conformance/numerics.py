"""Numerics: what a backend computes, against the reference."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from layerscale_core.conformance.clear_prompts import clear_prompt
from layerscale_core.conformance.executors import (
    kv_layout,
    logits_in_chunks,
    open_executor,
    random_tokens,
    reference_executor,
    reference_kernels,
    relative_error,
)
from layerscale_core.conformance.family_models import family_specs
from layerscale_core.conformance.random_model import LAYOUTS, OPERATIONS, RandomWeights, tiny_spec
from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.errors import UnsupportedModelError
from layerscale_core.forward import HostLayers, KernelExecutor
from layerscale_core.models import ModelSpec, MoeSpec
from layerscale_core.specs import Backend, Device, Kernels, KVType, LayersHost, num_pages_for

SHAPES: dict[str, dict[str, Any]] = {
    "multi-head": {"num_heads": 4, "num_kv_heads": 4},
    "multi-query": {"num_heads": 4, "num_kv_heads": 1},
    "groups of three": {"num_heads": 6, "num_kv_heads": 2},
    "wide heads": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 128},
    "heads of odd width": {"num_heads": 3, "num_kv_heads": 1, "head_dim": 20},
    "interleaved RoPE": {"interleaved": True},
    "partial RoPE": {"rotary_dim": 6},
    "partial interleaved RoPE": {"rotary_dim": 6, "interleaved": True},
    "RoPE with magnitude": {"rope_magnitude": 1.2},
    "untied head": {"tied_output": False},
    "one layer": {"num_layers": 1},
    "odd vocabulary": {"vocab_size": 61},
    "odd widths": {"hidden_size": 40, "intermediate_size": 56},
}
"""Shapes beside the ordinary one, as arguments of ``tiny_spec``."""


FAMILY_SPECS = family_specs()

CODE_FLIPS = {KVType.FP16: 0.0, KVType.INT8: 0.005, KVType.INT4: 0.05}
"""What is added to the error where an element lies between two codes and rounding before decides which it gets."""


class NumericsContract:
    """The logits are right, for every weight layout and shape."""

    max_relative_error: ClassVar[float] = 0.01
    """Root mean square of the logits' deviation from float32 arithmetic, in units of their spread. Half-precision
    arithmetic stays below this on the suite's models; a kernel that needs more is worth a question."""

    min_expert_margin: ClassVar[float] = 0.0
    """By how much experts are chosen in every prompt of a model that has them, in units of the router's scores. Where
    products are rounded to 16 bits, what comes to a router is off by a hundredth or so: below that another expert may
    win, which moves a logit by as much as it is, and says nothing of the backend."""

    PROMPT_LEN: ClassVar[int] = 37
    """Two full pages of the usual size and a part of the third."""

    def test_equals_the_reference_on_every_weight_layout(self, backend: Backend, device: Device, layout: str) -> None:
        """``step`` computes on the dequantised weights."""
        self._compare(backend, device, tiny_spec(), layout)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_equals_the_reference_on_every_shape(self, backend: Backend, device: Device, shape: str) -> None:
        """A shape is computed right or refused with ``UnsupportedModelError``, never computed wrong."""
        try:
            self._compare(backend, device, tiny_spec(**SHAPES[shape]), "f32")
        except UnsupportedModelError as refusal:
            pytest.skip(f"refused, as it may be: {refusal}")

    @pytest.mark.parametrize("family", FAMILY_SPECS)
    def test_equals_the_reference_for_every_family(self, backend: Backend, device: Device, family: str) -> None:
        """A whole model of each family is computed right or refused."""
        try:
            self._compare(backend, device, FAMILY_SPECS[family], "f32")
        except UnsupportedModelError as refusal:
            pytest.skip(f"refused, as it may be: {refusal}")

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_equals_the_reference_in_every_operation(self, backend: Backend, device: Device, operation: str) -> None:
        """What some families compute beside the ordinary is computed right or refused, too."""
        try:
            self._compare(backend, device, tiny_spec(**OPERATIONS[operation]), "f32")
        except UnsupportedModelError as refusal:
            pytest.skip(f"refused, as it may be: {refusal}")

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_kernels_equal_the_reference_in_every_operation(
        self, backend: Backend, device: Device, operation: str
    ) -> None:
        """``make_kernels``: every operation, for layers that stay on a host are computed with no other."""
        spec = tiny_spec(**OPERATIONS[operation])
        kv = kv_layout(spec, backend.capabilities.page_sizes[0])
        prompt = self._prompt(spec)
        executor = KernelExecutor(device.make_kernels(), spec, RandomWeights(spec), kv)
        truth = logits_in_chunks(reference_executor(spec, kv), kv, [prompt])
        assert relative_error(logits_in_chunks(executor, kv, [prompt]), truth) <= self.max_relative_error
        executor.close()

    @pytest.mark.parametrize("kv_type", KVType)
    @pytest.mark.parametrize("head_dim", [16, 20, 64, 128])
    def test_equals_the_reference_at_every_kv_precision(
        self, backend: Backend, device: Device, kv_type: KVType, head_dim: int
    ) -> None:
        """Keys and values are stored with the codes, scales and minima that ``KVType`` says."""
        if kv_type not in backend.capabilities.kv_types:
            pytest.skip(f"the backend declares no {kv_type}")
        spec = tiny_spec(head_dim=head_dim, num_heads=3, num_kv_heads=1)
        kv = kv_layout(spec, backend.capabilities.page_sizes[0], kv_type=kv_type)
        prompt = random_tokens(spec, self.PROMPT_LEN)
        truth = logits_in_chunks(reference_executor(spec, kv), kv, [prompt])
        with open_executor(device, spec, kv) as executor:
            error = relative_error(logits_in_chunks(executor, kv, [prompt]), truth)
        assert error <= self.max_relative_error + CODE_FLIPS[kv_type]

    def test_kernels_equal_the_reference_too(self, backend: Backend, device: Device, layout: str) -> None:
        """Core's forward pass over ``make_kernels`` computes the same, whether or not it is what serves."""
        spec = tiny_spec()
        kv = kv_layout(spec, backend.capabilities.page_sizes[0])
        executor = KernelExecutor(device.make_kernels(), spec, RandomWeights(spec, layout), kv)
        prompt = random_tokens(spec, self.PROMPT_LEN)
        truth = logits_in_chunks(reference_executor(spec, kv, layout), kv, [prompt])
        assert relative_error(logits_in_chunks(executor, kv, [prompt]), truth) <= self.max_relative_error
        executor.close()

    @pytest.mark.parametrize("on_host", [(0,), (1,), (0, 1)], ids=str)
    def test_layers_may_stay_on_the_host(self, backend: Backend, device: Device, on_host: tuple[int, ...]) -> None:
        """Kernels compute some layers, or none, and activations cross with ``to_host`` and ``from_host``."""
        self._compare_split(backend, device.make_kernels(), HostLayers(on_host, reference_kernels()))

    def test_kernels_of_the_host_compute_what_others_offload(self, backend: Backend, device: Device) -> None:
        """``Capabilities.is_host``: the kernels stand in where another device's layers stay behind."""
        if not backend.capabilities.is_host:
            pytest.skip("an accelerator: others do not offload to it")
        self._compare_split(backend, reference_kernels(), HostLayers((1,), device.make_kernels()))

    @pytest.mark.parametrize("on_host", [(0,), (1,), (0, 1)], ids=str)
    def test_a_host_of_layers_computes_what_others_offload(
        self, backend: Backend, device: Device, on_host: tuple[int, ...]
    ) -> None:
        """``LayersHost``: the same of what the device makes for such layers, which is what serves."""
        if not isinstance(device, LayersHost):
            pytest.skip("its kernels compute them: ``make_layers`` is optional")
        assert backend.capabilities.is_host
        self._compare_split(backend, reference_kernels(), HostLayers.on(device, on_host))

    def test_rotates_to_the_positions_of_the_batch(self, backend: Backend, device: Device) -> None:
        """``positions`` need not start at 0, nor be without gaps."""
        spec = tiny_spec()
        kv = kv_layout(spec, backend.capabilities.page_sizes[0])
        prompt = random_tokens(spec, self.PROMPT_LEN)
        chunks = [prompt[:20], prompt[20:]]
        truth = logits_in_chunks(reference_executor(spec, kv), kv, chunks, position_gap=1000)
        with open_executor(device, spec, kv) as executor:
            actual = logits_in_chunks(executor, kv, chunks, position_gap=1000)
        assert relative_error(actual, truth) <= self.max_relative_error

    def test_a_context_of_many_pages_is_attended_to_as_a_whole(self, backend: Backend, device: Device) -> None:
        """Softmax over hundreds of keys, across page and tile boundaries."""
        spec = tiny_spec(num_layers=1)
        page_size = backend.capabilities.page_sizes[0]
        kv = kv_layout(spec, page_size, num_pages=num_pages_for(700, page_size))
        prompt = random_tokens(spec, 700)
        truth = logits_in_chunks(reference_executor(spec, kv), kv, [prompt])
        with open_executor(device, spec, kv) as executor:
            assert relative_error(logits_in_chunks(executor, kv, [prompt]), truth) <= self.max_relative_error

    def test_returns_the_wanted_rows_in_order(self, backend: Backend, device: Device) -> None:
        """``logits_indices`` selects rows of the batch; where none is wanted, keys are written all the same."""
        spec = tiny_spec()
        kv = kv_layout(spec, backend.capabilities.page_sizes[0])
        prompt = random_tokens(spec, 12)
        with open_executor(device, spec, kv) as executor:
            every_row = logits_in_chunks(executor, kv, [prompt])
            book = PageBook(kv)
            sequence = book.sequence()
            start = book.batch([Span(sequence, prompt[:8])], wanted=[])
            assert executor.step(start).shape == (0, spec.vocab_size)
            rest = executor.step(book.batch([Span(sequence, prompt[8:])], wanted=[0, 2]))
            np.testing.assert_array_equal(rest, every_row[[8, 10]])

    def _compare_split(self, backend: Backend, kernels: Kernels, host_layers: HostLayers) -> None:
        spec = tiny_spec()
        kv = kv_layout(spec, backend.capabilities.page_sizes[0])
        chunks = [random_tokens(spec, self.PROMPT_LEN), random_tokens(spec, 1)]
        truth = logits_in_chunks(reference_executor(spec, kv), kv, chunks)
        executor = KernelExecutor(kernels, spec, RandomWeights(spec), kv, host_layers)
        assert relative_error(logits_in_chunks(executor, kv, chunks), truth) <= self.max_relative_error
        executor.close()

    def _compare(self, backend: Backend, device: Device, spec: ModelSpec, layout: str) -> None:
        kv = kv_layout(spec, backend.capabilities.page_sizes[0])
        prompt = self._prompt(spec)
        truth = logits_in_chunks(reference_executor(spec, kv, layout), kv, [prompt])
        with open_executor(device, spec, kv, layout) as executor:
            assert relative_error(logits_in_chunks(executor, kv, [prompt]), truth) <= self.max_relative_error

    def _prompt(self, spec: ModelSpec) -> list[int]:
        if self.min_expert_margin > 0 and any(isinstance(layer.mlp, MoeSpec) for layer in spec.layers):
            return clear_prompt(spec, self.PROMPT_LEN, self.min_expert_margin)
        return random_tokens(spec, self.PROMPT_LEN)

    @pytest.fixture(params=LAYOUTS)
    def layout(self, request: pytest.FixtureRequest) -> str:
        """Each kind of weight matrix."""
        layout: str = request.param
        return layout
