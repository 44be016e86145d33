"""The memory plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.errors import OutOfMemoryError
from layerscale_core.memory_plan import CONTEXT_STEP, KV_SHARE, MemoryPlan, MemoryRequest, plan_memory
from layerscale_core.models import AttentionSpec, LayerSpec, MlpSpec, ModelSpec, RopeSpec


def make_spec(num_layers: int, num_heads: int, num_kv_heads: int, head_dim: int) -> ModelSpec:
    attention = AttentionSpec(num_heads, num_kv_heads, head_dim, 1.0, RopeSpec((1.0,)))
    layers = (LayerSpec(attention, MlpSpec(1)),) * num_layers
    return ModelSpec("llama", 1, num_heads * head_dim, 131_072, 1e-5, layers, tied_output=True, num_parameters=1)


LLAMA_8B = make_spec(32, 32, 8, 128)
BYTES_PER_TOKEN = 131_072


def plan_with(budget_bytes: int, context_len: int, num_sessions: int = 0, max_burst_slots: int = 32) -> MemoryPlan:
    available = -(-budget_bytes * 10 // 9)  # so that KV_SHARE of it is the budget
    return plan_memory(LLAMA_8B, MemoryRequest(context_len, num_sessions, max_burst_slots, 0, available, 16))


@pytest.mark.parametrize(
    ("context_len", "num_sessions", "published_context", "is_clamped", "published_slots"),
    [(32768, 1, 32768, False, 7), (32768, 8, 24576, True, 0), (16384, 8, 16384, False, 3), (8192, 8, 8192, False, 19)],
)
def test_agrees_with_the_published_examples(
    context_len: int, num_sessions: int, published_context: int, is_clamped: bool, published_slots: int
) -> None:
    plan = plan_with(28_000_000_000, context_len, num_sessions)
    assert plan.layout.bytes_per_token == BYTES_PER_TOKEN
    assert plan.is_clamped == is_clamped
    assert abs(plan.context_len - published_context) <= 0.1 * published_context
    assert abs(plan.burst_slots - published_slots) <= 2


def test_takes_no_more_than_all_can_use() -> None:
    plan = plan_with(1 << 40, 1000, num_sessions=1, max_burst_slots=2)
    assert plan.layout.num_pages == 3 * 63  # 1000 tokens are 62.5 pages of 16
    assert (plan.context_len, plan.burst_slots, plan.is_clamped) == (1000, 2, False)


def test_weights_come_first() -> None:
    request = MemoryRequest(4096, 0, 32, weights_bytes=6 << 30, available_bytes=10 << 30, page_size=16)
    plan = plan_memory(LLAMA_8B, request)
    assert plan.layout.total_bytes <= KV_SHARE * (4 << 30)
    assert plan.burst_slots == 7


@pytest.mark.parametrize(("missing", "context_len"), [(0, 4096), (1, 3840)])
def test_context_is_clamped_only_when_a_page_is_missing(missing: int, context_len: int) -> None:
    plan = plan_with(4096 * BYTES_PER_TOKEN - missing * 16 * BYTES_PER_TOKEN, 4096)
    assert (plan.context_len, plan.burst_slots) == (context_len, 1)


def test_shortest_context_is_the_last_that_starts() -> None:
    assert plan_with(256 * BYTES_PER_TOKEN, 4096).context_len == CONTEXT_STEP
    with pytest.raises(OutOfMemoryError, match=r"32 MiB.*free memory or choose a smaller model"):
        plan_with(255 * BYTES_PER_TOKEN, 4096)


def test_refusal_says_how_many_sessions_would_fit() -> None:
    with pytest.raises(OutOfMemoryError, match="--sessions 3 would fit"):
        plan_with(3 * 256 * BYTES_PER_TOKEN, 4096, num_sessions=4)


def test_weights_larger_than_memory_are_refused() -> None:
    with pytest.raises(OutOfMemoryError, match="weights take 2048 MiB"):
        plan_memory(LLAMA_8B, MemoryRequest(256, 0, 1, 2 << 30, 1 << 30, 16))


def test_model_trained_on_less_than_the_step_is_served_whole() -> None:
    assert plan_with(1 << 40, 64).context_len == 64


@settings(deadline=None, max_examples=200)
@given(
    context_len=st.integers(256, 1 << 20),
    num_sessions=st.integers(0, 64),
    max_burst_slots=st.integers(1, 32),
    available=st.integers(0, 1 << 38),
    weights=st.integers(0, 1 << 35),
)
def test_every_plan_keeps_its_promises(
    context_len: int, num_sessions: int, max_burst_slots: int, available: int, weights: int
) -> None:
    request = MemoryRequest(context_len, num_sessions, max_burst_slots, weights, available, 16)
    try:
        plan = plan_memory(LLAMA_8B, request)
    except OutOfMemoryError:
        shortest = replace(request, context_len=CONTEXT_STEP)
        with pytest.raises(OutOfMemoryError):
            plan_memory(LLAMA_8B, shortest)
        return
    pages_each = -(-plan.context_len // 16)
    assert plan.context_len == context_len or (plan.context_len % CONTEXT_STEP == 0 and plan.context_len < context_len)
    assert plan.layout.total_bytes <= KV_SHARE * (available - weights)
    assert 0 <= plan.burst_slots <= max_burst_slots
    assert (num_sessions + plan.burst_slots) * pages_each <= plan.layout.num_pages
    assert plan.layout.num_pages <= (num_sessions + max_burst_slots) * pages_each
    assert num_sessions + plan.burst_slots >= 1
