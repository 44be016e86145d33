"""The memory plan."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.errors import OutOfMemoryError
from layerscale_core.memory_plan import (
    CONTEXT_STEP,
    KV_SHARE,
    SESSION_SLACK_PAGES,
    STATELESS_SHARE,
    Cap,
    MemoryPlan,
    MemoryRequest,
    MemoryShare,
    pages_of_session,
    plan_memory,
)
from layerscale_core.models import AttentionSpec, LayerSpec, MlpSpec, ModelSpec, RopeSpec
from layerscale_core.specs import KVType


def make_spec(num_layers: int, num_heads: int, num_kv_heads: int, head_dim: int) -> ModelSpec:
    attention = AttentionSpec(num_heads, num_kv_heads, head_dim, 1.0, RopeSpec((1.0,)))
    layers = (LayerSpec(attention, MlpSpec(1)),) * num_layers
    return ModelSpec("llama", 1, num_heads * head_dim, 131_072, 1e-5, layers, tied_output=True, num_parameters=1)


LLAMA_8B = make_spec(32, 32, 8, 128)
BYTES_PER_TOKEN = 131_072
SLACK_TOKENS = SESSION_SLACK_PAGES * 16
SHORTEST_SESSION_BYTES = (256 + SLACK_TOKENS) * BYTES_PER_TOKEN


def plan_with(
    budget_bytes: int, context_len: int, num_sessions: int = 0, max_burst_slots: int = 32, **precision: object
) -> MemoryPlan:
    available = -(-budget_bytes * 10 // 9)  # so that KV_SHARE of it is the budget
    request = MemoryRequest(context_len, num_sessions, max_burst_slots, 0, available, 16, **precision)
    return plan_memory(LLAMA_8B, request)


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


@pytest.mark.parametrize(("kv_type", "least_saving"), [(KVType.INT8, 0.45), (KVType.INT4, 0.70)])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_a_smaller_precision_saves_what_is_published(kv_type: KVType, least_saving: float, head_dim: int) -> None:
    fp16, smaller = KVType.FP16.bytes_per_head(head_dim), kv_type.bytes_per_head(head_dim)
    assert fp16 == 2 * 2 * head_dim
    assert 1 - smaller / fp16 >= least_saving


@pytest.mark.parametrize(("kv_type", "bytes_per_token"), [(KVType.INT8, 66_560), (KVType.INT4, 38_912)])
@pytest.mark.parametrize(("context_len", "num_sessions"), [(32768, 1), (32768, 8), (16384, 8), (8192, 8)])
def test_a_smaller_precision_fits_every_published_example_in_full(
    kv_type: KVType, bytes_per_token: int, context_len: int, num_sessions: int
) -> None:
    plan = plan_with(28_000_000_000, context_len, num_sessions, kv_type=kv_type)
    assert plan.layout.bytes_per_token == bytes_per_token
    assert not plan.is_clamped
    num_tokens = 28_000_000_000 // bytes_per_token
    assert plan.burst_slots == min(32, num_tokens // context_len - num_sessions)


def test_a_smaller_precision_is_advised_where_it_would_fit() -> None:
    budget = 200 * BYTES_PER_TOKEN
    with pytest.raises(OutOfMemoryError, match="; --kv-cache-type int8 or 8 MiB more memory would make it fit"):
        plan_with(budget, 256, kv_types=tuple(KVType))
    with pytest.raises(OutOfMemoryError, match=r"; --kv-cache-type int4 or .* more memory would"):
        plan_with(budget // 2, 256, kv_types=tuple(KVType))
    with pytest.raises(OutOfMemoryError, match="; 8 MiB more memory would make it fit"):
        plan_with(budget, 256, kv_types=(KVType.FP16,))


def test_takes_no_more_than_all_can_use() -> None:
    plan = plan_with(1 << 40, 1000, num_sessions=1, max_burst_slots=2)
    assert plan.layout.num_pages == 3 * 63 + SESSION_SLACK_PAGES  # 1000 tokens are 62.5 pages of 16
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
    with pytest.raises(OutOfMemoryError, match=r"need 32 MiB.*; 1 MiB more memory would make it fit"):
        plan_with(255 * BYTES_PER_TOKEN, 4096)


def test_refusal_says_how_many_sessions_would_fit() -> None:
    with pytest.raises(OutOfMemoryError, match="--sessions 3 or 41 MiB more memory would make it fit"):
        plan_with(3 * SHORTEST_SESSION_BYTES, 4096, num_sessions=4)


def test_weights_larger_than_memory_are_refused() -> None:
    with pytest.raises(OutOfMemoryError, match=r"weights take 2,048 MiB.*or a smaller quantisation"):
        plan_memory(LLAMA_8B, MemoryRequest(256, 0, 1, 2 << 30, 1 << 30, 16))


def test_model_trained_on_less_than_the_step_is_served_whole() -> None:
    assert plan_with(1 << 40, 64).context_len == 64


def test_workspace_comes_out_of_the_same_memory() -> None:
    without = MemoryRequest(4096, 1, 2, weights_bytes=1 << 30, available_bytes=4 << 30, page_size=16)
    plan = plan_memory(LLAMA_8B, replace(without, workspace_bytes=1 << 30))
    assert plan.request.device.budget_bytes == int(KV_SHARE * (2 << 30))
    assert plan_memory(LLAMA_8B, without).request.device.budget_bytes > plan.request.device.budget_bytes


def test_sessions_that_are_cut_leave_stateless_requests_a_share() -> None:
    plan = plan_with(100_000 * BYTES_PER_TOKEN, 131_072, num_sessions=1)
    assert plan.context_len == int(100_000 * (1 - STATELESS_SHARE)) // CONTEXT_STEP * CONTEXT_STEP
    assert plan.burst_tokens >= 100_000 * STATELESS_SHARE - 16
    assert (plan.burst_slots, plan.burst_cap, plan.context_cap) == (0, Cap.MEMORY, Cap.MEMORY)


def test_the_last_sessions_that_fit_take_all() -> None:
    plan = plan_with(8 * SHORTEST_SESSION_BYTES, 4096, num_sessions=8)
    assert (plan.context_len, plan.burst_tokens, plan.layout.num_session_pages) == (256, 0, 8 * 18)


def test_says_what_limits_it() -> None:
    plan = plan_with(1 << 40, 4096, num_sessions=2, max_burst_slots=3)
    assert (plan.context_cap, plan.burst_cap) == (Cap.WISH, Cap.TIER)
    plan = plan_with((4 * 4096 + 2 * SLACK_TOKENS) * BYTES_PER_TOKEN, 4096, num_sessions=2, max_burst_slots=3)
    assert (plan.burst_slots, plan.context_cap, plan.burst_cap) == (2, Cap.WISH, Cap.MEMORY)


def split(num_host_layers: int, device_tokens: int, host_tokens: int, **changed: int) -> MemoryRequest:
    """A request for a model whose sides have room for so many tokens of their layers."""
    device_bytes = device_tokens * BYTES_PER_TOKEN * (32 - num_host_layers) // 32
    host_bytes = host_tokens * BYTES_PER_TOKEN * num_host_layers // 32
    host = MemoryShare(-(-host_bytes * 10 // 9) + 300, weights_bytes=200, workspace_bytes=100)
    request = MemoryRequest(4096, 0, 32, 0, -(-device_bytes * 10 // 9), 16, num_host_layers=num_host_layers, host=host)
    return replace(request, **changed)


@pytest.mark.parametrize(("device_tokens", "host_tokens"), [(8192, 12_000), (12_000, 8192)])
def test_the_smaller_side_limits_the_pages_of_both(device_tokens: int, host_tokens: int) -> None:
    plan = plan_memory(LLAMA_8B, split(8, device_tokens, host_tokens))
    assert plan.layout.num_pages == 8192 // 16
    assert plan.host_layout.total_bytes * 4 == plan.layout.total_bytes
    assert (plan.burst_slots, plan.burst_cap) == (2, Cap.MEMORY)


def test_a_device_without_layers_has_no_part_of_the_cache() -> None:
    plan = plan_memory(LLAMA_8B, split(32, 0, 8192))
    assert plan.host_layout == plan.layout
    with pytest.raises(OutOfMemoryError, match="; 1 MiB more memory or"):
        plan_memory(LLAMA_8B, split(32, 0, 8192, workspace_bytes=1))


def test_refusal_names_the_side_that_lacks() -> None:
    with pytest.raises(OutOfMemoryError, match=r"need 8 MiB.*of 4 MiB available CPU memory.*; 5 MiB more CPU memory"):
        plan_memory(LLAMA_8B, split(8, 8192, 128))
    with pytest.raises(OutOfMemoryError, match=r"need 24 MiB.*available memory.*; 14 MiB more memory would"):
        plan_memory(LLAMA_8B, split(8, 128, 8192))
    with pytest.raises(OutOfMemoryError, match="14 MiB more memory and 5 MiB more CPU memory would make it fit"):
        plan_memory(LLAMA_8B, split(8, 128, 128))


SHARES = st.builds(
    MemoryShare,
    available_bytes=st.integers(0, 1 << 38),
    weights_bytes=st.integers(0, 1 << 35),
    workspace_bytes=st.integers(0, 1 << 32),
)
WHOLE = st.builds(
    MemoryRequest,
    context_len=st.integers(256, 1 << 20),
    num_sessions=st.integers(0, 64),
    max_burst_slots=st.integers(1, 32),
    weights_bytes=st.integers(0, 1 << 35),
    available_bytes=st.integers(0, 1 << 38),
    page_size=st.sampled_from([1, 16, 32, 100, 512]),
    workspace_bytes=st.integers(0, 1 << 32),
)
SPLIT = st.builds(replace, WHOLE, num_host_layers=st.integers(1, 32), host=SHARES)
REQUESTS = WHOLE | SPLIT


def with_more(request: MemoryRequest, device_bytes: int, host_bytes: int) -> MemoryRequest:
    host = request.host and replace(request.host, available_bytes=request.host.available_bytes + host_bytes)
    return replace(request, available_bytes=request.available_bytes + device_bytes, host=host)


def plan_or_refusal(request: MemoryRequest) -> MemoryPlan | str:
    try:
        return plan_memory(LLAMA_8B, request)
    except OutOfMemoryError as error:
        return str(error)


@settings(deadline=None, max_examples=300)
@given(REQUESTS)
def test_every_plan_keeps_its_promises(request: MemoryRequest) -> None:
    plan = plan_or_refusal(request)
    if isinstance(plan, str):
        assert isinstance(plan_or_refusal(replace(request, context_len=CONTEXT_STEP)), str)
        return
    pages_each = -(-plan.context_len // request.page_size)
    rest = request.available_bytes - request.weights_bytes - request.workspace_bytes
    assert plan.layout.total_bytes - plan.host_layout.total_bytes <= KV_SHARE * rest
    if request.host is not None:
        host_rest = request.host.available_bytes - request.host.weights_bytes - request.host.workspace_bytes
        assert plan.host_layout.total_bytes <= KV_SHARE * host_rest
    assert plan.context_len == request.context_len or plan.context_len % CONTEXT_STEP == 0
    assert CONTEXT_STEP <= plan.context_len <= request.context_len
    assert plan.layout.num_session_pages == request.num_sessions * pages_of_session(plan.context_len, request.page_size)
    assert plan.layout.num_pages == plan.layout.num_session_pages + plan.num_burst_pages
    assert plan.burst_slots == min(request.max_burst_slots, plan.num_burst_pages // pages_each)
    assert 0 <= plan.num_burst_pages <= request.max_burst_slots * pages_each
    assert request.num_sessions + plan.burst_slots >= 1


@settings(deadline=None, max_examples=200)
@given(REQUESTS, st.integers(1, 1 << 36))
def test_more_memory_never_makes_a_plan_smaller(request: MemoryRequest, more_bytes: int) -> None:
    plan = plan_or_refusal(request)
    richer = plan_or_refusal(with_more(request, more_bytes, more_bytes))
    if isinstance(plan, MemoryPlan):
        assert isinstance(richer, MemoryPlan)
        assert richer.context_len >= plan.context_len
        assert richer.layout.num_session_pages >= plan.layout.num_session_pages


@settings(deadline=None, max_examples=200)
@given(REQUESTS)
def test_what_a_refusal_recommends_helps(request: MemoryRequest) -> None:
    refusal = plan_or_refusal(request)
    if isinstance(refusal, MemoryPlan):
        return
    assert "\n" not in refusal
    more = [re.search(rf"([\d,]+) MiB more {place}", refusal) for place in ("memory", "CPU memory")]
    assert any(more)
    missing = [int(found[1].replace(",", "")) << 20 if found else 0 for found in more]
    assert isinstance(plan_or_refusal(with_more(request, *missing)), MemoryPlan)
    if fewer := re.search(r"--sessions (\d+)", refusal):
        assert isinstance(plan_or_refusal(replace(request, num_sessions=int(fewer[1]))), MemoryPlan)
