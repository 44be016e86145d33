"""The memory plan: how much KV cache is committed, and for whom, before any weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from layerscale_core.errors import OutOfMemoryError
from layerscale_core.models import ModelSpec
from layerscale_core.specs.executor import KVLayout

CONTEXT_STEP = 256
"""A clamped context is a multiple of this, and never less."""

KV_SHARE = 0.9
"""Part of the memory beside the weights that the KV cache may take; the rest is for activations and the process."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class MemoryRequest:
    """What the plan is made for.

    Attributes:
        context_len: wanted context window of one sequence, in tokens.
        num_sessions: persistent sessions, each with a whole context of its own.
        max_burst_slots: most stateless requests that run at once.
        weights_bytes: what the weights will take of the same memory.
        available_bytes: what the device can still give.
        page_size: tokens per page.
    """

    context_len: int
    num_sessions: int
    max_burst_slots: int
    weights_bytes: int
    available_bytes: int
    page_size: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What is committed.

    Attributes:
        layout: the KV cache.
        context_len: context window of one sequence; less than wanted when clamped.
        burst_slots: stateless requests that can hold a full context at once; more run while they are shorter.
    """

    layout: KVLayout
    context_len: int
    burst_slots: int
    request: MemoryRequest

    @property
    def is_clamped(self) -> bool:
        """The wanted context did not fit."""
        return self.context_len < self.request.context_len


def plan_memory(spec: ModelSpec, request: MemoryRequest) -> MemoryPlan:
    """Divide the memory beside the weights.

    Sessions come first; if they do not fit with the wanted context, all get a shorter one. What is left, up to the
    allowed number of full contexts, is for stateless requests. Without sessions one sequence must fit.

    Raises:
        OutOfMemoryError: not even the shortest context fits; the message has the numbers.
    """
    one_page = _layout(spec, request.page_size, num_pages=1)
    budget_bytes = int(KV_SHARE * max(0, request.available_bytes - request.weights_bytes))
    budget_pages = budget_bytes // one_page.total_bytes
    num_guaranteed = max(1, request.num_sessions)
    context_len = _fitting_context(request, budget_pages // num_guaranteed)
    if context_len < min(CONTEXT_STEP, request.context_len):
        raise OutOfMemoryError(_refusal(request, num_guaranteed, one_page.bytes_per_token, budget_bytes))
    context_pages = _pages(context_len, request.page_size)
    burst_pages = budget_pages - request.num_sessions * context_pages
    burst_slots = min(request.max_burst_slots, burst_pages // context_pages)
    num_pages = min(budget_pages, (request.num_sessions + request.max_burst_slots) * context_pages)
    return MemoryPlan(_layout(spec, request.page_size, num_pages), context_len, burst_slots, request)


def _layout(spec: ModelSpec, page_size: int, num_pages: int) -> KVLayout:
    attention = spec.layers[0].attention
    return KVLayout(num_pages, page_size, len(spec.layers), attention.num_kv_heads, attention.head_dim)


def _pages(num_tokens: int, page_size: int) -> int:
    return -(-num_tokens // page_size)


def _fitting_context(request: MemoryRequest, pages_each: int) -> int:
    """The wanted context if a sequence's pages hold it, else the longest multiple of ``CONTEXT_STEP`` that they do."""
    fitting = pages_each * request.page_size
    if fitting >= request.context_len:
        return request.context_len
    return fitting // CONTEXT_STEP * CONTEXT_STEP


def _refusal(request: MemoryRequest, num_guaranteed: int, bytes_per_token: int, budget_bytes: int) -> str:
    needed = num_guaranteed * CONTEXT_STEP * bytes_per_token
    fitting_sessions = budget_bytes // (CONTEXT_STEP * bytes_per_token)
    remedy = f"--sessions {fitting_sessions} would fit" if fitting_sessions else "free memory or choose a smaller model"
    return (
        f"the KV cache does not fit: {num_guaranteed} sequences of {CONTEXT_STEP} tokens need {needed / _MIB:.0f} MiB, "
        f"and of {request.available_bytes / _MIB:.0f} MiB available the weights take "
        f"{request.weights_bytes / _MIB:.0f} MiB, which leaves {budget_bytes / _MIB:.0f} MiB for the cache; {remedy}"
    )
