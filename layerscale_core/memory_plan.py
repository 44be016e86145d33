"""The memory plan: how much KV cache is committed, and for whom, before any weight is loaded."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from layerscale_core.errors import OutOfMemoryError
from layerscale_core.models import ModelSpec
from layerscale_core.specs.executor import KVLayout

CONTEXT_STEP = 256
"""A clamped context is a multiple of this, and never less."""

KV_SHARE = 0.9
"""Part of the memory beside weights and workspace that the KV cache may take; the rest is headroom for the process."""

STATELESS_SHARE = 1 / 16
"""Part of the KV budget that clamped sessions leave to stateless requests, which could not run at all without any."""

SESSION_SLACK_PAGES = 2
"""Pages of a session beside those of its context: the prefix may end, and the data begin, in the middle of a page."""

_MIB = 1 << 20


def pages_of_session(context_len: int, page_size: int) -> int:
    """Pages that a session with this context reserves, so that it can be filled to its last token."""
    return _pages(context_len, page_size) + SESSION_SLACK_PAGES


class Cap(enum.Enum):
    """What a number of the plan is limited by."""

    WISH = "wish"
    MEMORY = "memory"
    TIER = "tier"


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
        workspace_bytes: what the largest step takes of the same memory.
    """

    context_len: int
    num_sessions: int
    max_burst_slots: int
    weights_bytes: int
    available_bytes: int
    page_size: int
    workspace_bytes: int = 0

    @property
    def num_guaranteed(self) -> int:
        """Contexts that must fit: every session's, or one stateless request's when there is none."""
        return max(1, self.num_sessions)

    @property
    def slack_pages(self) -> int:
        """Pages that each of them takes beside those of its context."""
        return SESSION_SLACK_PAGES if self.num_sessions else 0

    def guaranteed_pages(self, context_len: int) -> int:
        """Pages of the contexts that must fit, if they have this length."""
        return self.num_guaranteed * (_pages(context_len, self.page_size) + self.slack_pages)

    @property
    def rest_bytes(self) -> int:
        """What weights and workspace leave; negative when they do not fit themselves."""
        return self.available_bytes - self.weights_bytes - self.workspace_bytes

    @property
    def budget_bytes(self) -> int:
        """What the KV cache may take."""
        return int(KV_SHARE * max(0, self.rest_bytes))


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What is committed.

    Attributes:
        layout: the KV cache; its session pages come first, the others are the burst pool.
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

    @property
    def context_cap(self) -> Cap:
        """Why the context is not longer."""
        return Cap.MEMORY if self.is_clamped else Cap.WISH

    @property
    def burst_cap(self) -> Cap:
        """Why there are not more burst slots."""
        return Cap.TIER if self.burst_slots == self.request.max_burst_slots else Cap.MEMORY

    @property
    def num_burst_pages(self) -> int:
        """Pages of the burst pool."""
        return self.layout.num_pages - self.layout.num_session_pages

    @property
    def burst_tokens(self) -> int:
        """Tokens of the burst pool: the longest stateless request, if that is less than the context."""
        return self.num_burst_pages * self.layout.page_size


def plan_memory(spec: ModelSpec, request: MemoryRequest) -> MemoryPlan:
    """Divide the memory beside weights and workspace.

    Sessions come first; if they do not fit with the wanted context, all get a shorter one. What is left, up to the
    allowed number of full contexts, is for stateless requests. Without sessions one sequence must fit.

    Raises:
        OutOfMemoryError: not even the shortest context fits; the message has the numbers.
    """
    one_page = _layout(spec, request.page_size, num_pages=1)
    budget_pages = request.budget_bytes // one_page.total_bytes
    context_len = _fitting_context(request, budget_pages)
    if context_len == 0:
        raise OutOfMemoryError(_refusal(request, one_page.bytes_per_token))
    context_pages = _pages(context_len, request.page_size)
    session_pages = request.num_sessions * pages_of_session(context_len, request.page_size)
    burst_pages = min(budget_pages - session_pages, request.max_burst_slots * context_pages)
    layout = _layout(spec, request.page_size, session_pages + burst_pages, session_pages)
    return MemoryPlan(layout, context_len, burst_pages // context_pages, request)


def _layout(spec: ModelSpec, page_size: int, num_pages: int, num_session_pages: int = 0) -> KVLayout:
    attention = spec.layers[0].attention
    return KVLayout(
        num_pages, page_size, len(spec.layers), attention.num_kv_heads, attention.head_dim, num_session_pages
    )


def _pages(num_tokens: int, page_size: int) -> int:
    return -(-num_tokens // page_size)


def _fitting_context(request: MemoryRequest, budget_pages: int) -> int:
    """The wanted context if every guaranteed sequence gets it, else a shorter one; 0 when not even the shortest fits.

    A shorter one is the longest multiple of ``CONTEXT_STEP`` that leaves stateless requests their share.
    """
    shortest = min(CONTEXT_STEP, request.context_len)
    if request.guaranteed_pages(request.context_len) <= budget_pages:
        return request.context_len
    stateless_pages = int(STATELESS_SHARE * budget_pages) if request.num_sessions else 0
    pages_each = (budget_pages - stateless_pages) // request.num_guaranteed - request.slack_pages
    clamped = pages_each * request.page_size // CONTEXT_STEP * CONTEXT_STEP
    if clamped > 0:
        return clamped
    return shortest if request.guaranteed_pages(shortest) <= budget_pages else 0


def _refusal(request: MemoryRequest, bytes_per_token: int) -> str:
    """One line: what is needed, what there is, and what would fit."""
    shortest = min(CONTEXT_STEP, request.context_len)
    needed = request.guaranteed_pages(shortest) * request.page_size * bytes_per_token
    missing_mib = math.ceil((needed / KV_SHARE - request.rest_bytes + 1) / _MIB)
    fitting_sessions = request.budget_bytes * request.num_guaranteed // needed
    remedies = [f"--sessions {fitting_sessions}"] if fitting_sessions else []
    remedies.append(f"{missing_mib:,} MiB more memory")
    if request.rest_bytes <= 0:
        remedies.append("a smaller quantisation of the model")
    return (
        f"the model does not fit: {request.num_guaranteed} x {shortest} tokens of KV cache need "
        f"{needed / _MIB:,.0f} MiB, and of {request.available_bytes / _MIB:,.0f} MiB available the weights take "
        f"{request.weights_bytes / _MIB:,.0f} MiB and a step's workspace {request.workspace_bytes / _MIB:,.0f} MiB, "
        f"which leaves {request.budget_bytes / _MIB:,.0f} MiB for the cache; {' or '.join(remedies)} would make it fit"
    )
