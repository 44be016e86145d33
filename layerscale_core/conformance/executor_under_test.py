"""The executors that batching and paging are tested on: one small model, at several precisions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from layerscale_core.conformance.executors import kv_layout, open_executor, random_tokens
from layerscale_core.conformance.random_model import tiny_spec
from layerscale_core.specs import Backend, Device, Executor, KVLayout, KVType

SPEC = tiny_spec()
PROMPT = random_tokens(SPEC, 37)
CASES = (
    ("f32", KVType.FP16),
    ("4-bit, groups of 32, mins", KVType.FP16),
    ("8-bit, groups of 32", KVType.FP16),
    ("8-bit, groups of 32", KVType.INT8),
    ("4-bit, groups of 32, mins", KVType.INT4),
)
"""Layouts of weights, and precisions of the cache."""


class ExecutorUnderTest:
    """Fixtures for contracts that compare logits of one executor with one another."""

    @pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}, {case[1]}")
    def case(self, request: pytest.FixtureRequest, backend: Backend) -> tuple[str, KVType]:
        """Dense and quantised weights, and every precision of the cache that the backend declares."""
        case: tuple[str, KVType] = request.param
        if case[1] not in backend.capabilities.kv_types:
            pytest.skip(f"the backend declares no {case[1]}")
        return case

    @pytest.fixture
    def weight_layout(self, case: tuple[str, KVType]) -> str:
        """How the weights are stored."""
        return case[0]

    @pytest.fixture
    def kv(self, backend: Backend, case: tuple[str, KVType]) -> KVLayout:
        """A cache for the suite's model."""
        return kv_layout(SPEC, backend.capabilities.page_sizes[0], kv_type=case[1])

    @pytest.fixture
    def executor(self, device: Device, kv: KVLayout, weight_layout: str) -> Iterator[Executor]:
        """The backend's executor."""
        with open_executor(device, SPEC, kv, weight_layout) as executor:
            yield executor
