"""The memory plan: how much KV cache is committed, and for whom, before any weight is loaded."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from layerscale_core.errors import OutOfMemoryError
from layerscale_core.models import ModelSpec
from layerscale_core.specs.executor import KVLayout, KVType
from layerscale_core.specs.kv_pool import num_pages_for

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
    return num_pages_for(context_len, page_size) + SESSION_SLACK_PAGES


class Cap(enum.Enum):
    """What a number of the plan is limited by."""

    WISH = "wish"
    MEMORY = "memory"
    TIER = "tier"


@dataclass(frozen=True, slots=True)
class MemoryShare:
    """One memory, and what the model takes of it beside the KV cache.

    Attributes:
        available_bytes: what it can still give.
        weights_bytes: what the weights will take.
        workspace_bytes: what the largest step takes.
    """

    available_bytes: int
    weights_bytes: int
    workspace_bytes: int

    @property
    def rest_bytes(self) -> int:
        """What weights and workspace leave; negative when they do not fit themselves."""
        return self.available_bytes - self.weights_bytes - self.workspace_bytes

    @property
    def budget_bytes(self) -> int:
        """What the KV cache may take."""
        return int(KV_SHARE * max(0, self.rest_bytes))

    @property
    def headroom_bytes(self) -> int:
        """What stays free of the rest."""
        return self.rest_bytes - self.budget_bytes


@dataclass(frozen=True, slots=True)
class MemoryRequest:
    """What the plan is made for.

    Attributes:
        context_len: wanted context window of one sequence, in tokens.
        num_sessions: persistent sessions, each with a whole context of its own.
        max_burst_slots: most stateless requests that run at once.
        weights_bytes: what the weights will take of the device's memory.
        available_bytes: what the device can still give.
        page_size: tokens per page.
        workspace_bytes: what the largest step takes of the device's memory.
        kv_type: precision of the KV cache.
        kv_types: what it could be here, as advice when nothing fits.
        num_host_layers: layers whose weights and KV cache stay in host memory.
        host: that memory, if there are any.
    """

    context_len: int
    num_sessions: int
    max_burst_slots: int
    weights_bytes: int
    available_bytes: int
    page_size: int
    workspace_bytes: int = 0
    kv_type: KVType = KVType.FP16
    kv_types: tuple[KVType, ...] = ()
    num_host_layers: int = 0
    host: MemoryShare | None = None

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
        return self.num_guaranteed * (num_pages_for(context_len, self.page_size) + self.slack_pages)

    @property
    def device(self) -> MemoryShare:
        """The device's memory."""
        return MemoryShare(self.available_bytes, self.weights_bytes, self.workspace_bytes)


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
    def host_layout(self) -> KVLayout:
        """The part of the cache that lies in host memory."""
        return replace(self.layout, num_layers=self.request.num_host_layers)

    @property
    def num_burst_pages(self) -> int:
        """Pages of the burst pool."""
        return self.layout.num_pages - self.layout.num_session_pages

    @property
    def burst_tokens(self) -> int:
        """Tokens of the burst pool: the longest stateless request, if that is less than the context."""
        return self.num_burst_pages * self.layout.page_size


def plan_memory(spec: ModelSpec, request: MemoryRequest) -> MemoryPlan:
    """``find_plan``, for whom nothing else can be tried.

    Raises:
        OutOfMemoryError: not even the shortest context fits; the message has the numbers.
    """
    plan = find_plan(spec, request)
    if plan is None:
        raise refusal(spec, request)
    return plan


def find_plan(spec: ModelSpec, request: MemoryRequest) -> MemoryPlan | None:
    """Divide the memory beside weights and workspace; None when not even the shortest context fits.

    Sessions come first; if they do not fit with the wanted context, all get a shorter one. What is left, up to the
    allowed number of full contexts, is for stateless requests. Without sessions one sequence must fit.
    """
    budget_pages = _budget_pages(_sides(spec, request))
    context_len = _fitting_context(request, budget_pages)
    if context_len == 0:
        return None
    context_pages = num_pages_for(context_len, request.page_size)
    session_pages = request.num_sessions * pages_of_session(context_len, request.page_size)
    burst_pages = min(budget_pages - session_pages, request.max_burst_slots * context_pages)
    layout = _layout(spec, request, session_pages + burst_pages, session_pages)
    return MemoryPlan(layout, context_len, burst_pages // context_pages, request)


@dataclass(frozen=True, slots=True)
class _Side:
    """The device or the host, and how much of a page of the KV cache lies there."""

    name: str
    share: MemoryShare
    page_bytes: int

    def lacks(self, num_pages: int) -> bool:
        """So many pages do not fit."""
        return self.share.rest_bytes < 0 or num_pages * self.page_bytes > self.share.budget_bytes


def _sides(spec: ModelSpec, request: MemoryRequest) -> list[_Side]:
    page = _layout(spec, request, num_pages=1)
    on_host = replace(page, num_layers=request.num_host_layers).total_bytes
    sides = [_Side("memory", request.device, page.total_bytes - on_host)]
    return [*sides, _Side("CPU memory", request.host, on_host)] if request.host else sides


def _budget_pages(sides: Sequence[_Side]) -> int:
    """Pages of which every layer's part fits where the layer is."""
    if any(side.lacks(0) for side in sides):
        return 0
    return min(side.share.budget_bytes // side.page_bytes for side in sides if side.page_bytes)


def _layout(spec: ModelSpec, request: MemoryRequest, num_pages: int, num_session_pages: int = 0) -> KVLayout:
    attention = spec.layers[0].attention
    return KVLayout(
        num_pages,
        request.page_size,
        len(spec.layers),
        attention.num_kv_heads,
        attention.head_dim,
        num_session_pages,
        request.kv_type,
    )


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


def refusal(spec: ModelSpec, request: MemoryRequest, *, further_remedy: str | None = None) -> OutOfMemoryError:
    """One line for a request without a plan: what is needed, what there is, and what would make it fit."""
    sides = _sides(spec, request)
    shortest = min(CONTEXT_STEP, request.context_len)
    num_pages = request.guaranteed_pages(shortest)
    lacking = [side for side in sides if side.lacks(num_pages)]
    fitting_sessions = _budget_pages(sides) * request.num_guaranteed // num_pages
    remedies = [f"--sessions {fitting_sessions}"] if fitting_sessions else []
    remedies += [f"--kv-cache-type {kv_type}" for kv_type in _fitting_kv_types(spec, request)[:1]]
    remedies += [further_remedy] if further_remedy else []
    remedies.append(" and ".join(f"{_missing_mib(side, num_pages):,} MiB more {side.name}" for side in lacking))
    if request.device.rest_bytes <= 0:
        remedies.append("a smaller quantisation of the model")
    contexts = f"{request.num_guaranteed} x {shortest} tokens of KV cache"
    needs = "; ".join(_needs(side, num_pages, contexts) for side in lacking)
    return OutOfMemoryError(f"the model does not fit: {needs}; {' or '.join(remedies)} would make it fit")


def _fitting_kv_types(spec: ModelSpec, request: MemoryRequest) -> list[KVType]:
    return [kv_type for kv_type in request.kv_types if find_plan(spec, replace(request, kv_type=kv_type))]


def _missing_mib(side: _Side, num_pages: int) -> int:
    return math.ceil((num_pages * side.page_bytes / KV_SHARE - side.share.rest_bytes + 1) / _MIB)


def _needs(side: _Side, num_pages: int, contexts: str) -> str:
    share = side.share
    return (
        f"{contexts} need {_mib(num_pages * side.page_bytes)}, and of {_mib(share.available_bytes)} available "
        f"{side.name} the weights take {_mib(share.weights_bytes)} and a step's workspace "
        f"{_mib(share.workspace_bytes)}, which leaves {_mib(share.budget_bytes)} for the cache"
    )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / _MIB:,.0f} MiB"
