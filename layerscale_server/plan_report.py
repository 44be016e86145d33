"""The memory plan as people and machines read it: the same table in the log and from ``layerscale plan``."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from layerscale_core.memory_plan import KV_SHARE, Cap
from layerscale_server.planning import StartPlan
from layerscale_server.sizes import readable
from layerscale_server.text import printable

_WIDTH = 118


def plan_warnings(plan: StartPlan) -> list[str]:
    """Where the plan is less than what was asked for."""
    memory = plan.memory
    lines = []
    if memory.is_clamped:
        lines.append(
            f"a context of {memory.request.context_len} tokens does not fit in memory and is cut to "
            f"{memory.context_len}"
        )
    if memory.burst_slots == 0:
        lines.append(
            f"sessions leave stateless requests {memory.burst_tokens} tokens, less than one full context; "
            "a lower --context or --sessions leaves more"
        )
    return lines


def plan_lines(plan: StartPlan) -> list[str]:
    """The table, line by line, in plain text."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in range(3):
        table.add_column(no_wrap=column < 2)
    for row in _rows(plan):
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def plan_fields(plan: StartPlan) -> dict[str, object]:
    """The same for machines; sizes in bytes."""
    memory, layout, request = plan.memory, plan.memory.layout, plan.memory.request
    return {
        "architecture": plan.spec.architecture,
        "parameters": plan.spec.num_parameters,
        "layers": len(plan.spec.layers),
        "file_bytes": plan.size_bytes,
        "backend": plan.backend,
        "device": plan.device.description,
        "tier": plan.tier.name,
        "available_bytes": request.available_bytes,
        "weights_bytes": request.weights_bytes,
        "workspace_bytes": request.workspace_bytes,
        "headroom_bytes": request.rest_bytes - request.budget_bytes,
        "kv_budget_bytes": request.budget_bytes,
        "kv_cache_bytes": layout.total_bytes,
        "kv_cache_type": layout.kv_type.value,
        "kv_bytes_per_token": layout.bytes_per_token,
        "page_size": layout.page_size,
        "context": memory.context_len,
        "context_wanted": request.context_len,
        "context_cap": memory.context_cap.value,
        "sessions": request.num_sessions,
        "sessions_wanted": plan.settings.sessions,
        "sessions_cap": _sessions_cap(plan).value,
        "session_pages": layout.num_session_pages,
        "burst_pages": memory.num_burst_pages,
        "burst_tokens": memory.burst_tokens,
        "burst_slots": memory.burst_slots,
        "burst_slots_cap": memory.burst_cap.value,
    }


def _sessions_cap(plan: StartPlan) -> Cap:
    return Cap.TIER if plan.settings.sessions > plan.tier.max_sessions else Cap.WISH


def _rows(plan: StartPlan) -> list[tuple[str, str, str]]:
    return [*_device_rows(plan), *_cache_rows(plan)]


def _device_rows(plan: StartPlan) -> list[tuple[str, str, str]]:
    """What there is, and what the model takes of it."""
    request = plan.memory.request
    bits = 8 * request.weights_bytes / plan.spec.num_parameters
    found = f"of {readable(plan.device.total_memory_bytes)}, as this process may use them"
    return [
        ("model", plan.spec.architecture, f"{plan.spec.num_parameters:,} parameters, {len(plan.spec.layers)} layers"),
        ("device", plan.backend, plan.device.description),
        ("available", readable(request.available_bytes), "assumed" if plan.is_assumed else found),
        (
            "weights",
            readable(request.weights_bytes),
            f"{bits:.2f} bits a parameter, {readable(plan.size_bytes)} in the file",
        ),
        (
            "workspace",
            readable(request.workspace_bytes),
            f"a step of {plan.limits.max_tokens} tokens and its logits",
        ),
        (
            "headroom",
            readable(request.rest_bytes - request.budget_bytes),
            f"{1 - KV_SHARE:.0%} of the rest, for the process",
        ),
        ("KV budget", readable(request.budget_bytes), "what is left"),
    ]


def _cache_rows(plan: StartPlan) -> list[tuple[str, str, str]]:
    """What is committed for whom, and why it is not more."""
    memory, layout, request = plan.memory, plan.memory.layout, plan.memory.request
    page_bytes = layout.page_size * layout.bytes_per_token
    bits = 8 * layout.kv_type.bytes_per_head(layout.head_dim) / (2 * layout.head_dim)
    shape = f"{layout.num_layers} layers x 2 x {layout.num_kv_heads} KV heads x {layout.head_dim} wide, "
    return [
        ("KV per token", f"{layout.bytes_per_token:,} bytes", f"{shape}{layout.kv_type}: {bits:g} bits an element"),
        ("context", f"{memory.context_len:,} tokens", _why_context(plan)),
        ("sessions", f"{request.num_sessions:,} reserved", _why_sessions(plan)),
        ("session pages", readable(layout.num_session_pages * page_bytes), f"{layout.num_session_pages:,} pages"),
        (
            "burst pool",
            readable(memory.num_burst_pages * page_bytes),
            f"{memory.num_burst_pages:,} pages, {memory.burst_tokens:,} tokens for stateless requests",
        ),
        ("burst slots", f"{memory.burst_slots:,} full contexts", _why_burst_slots(plan)),
        (
            "KV cache",
            readable(layout.total_bytes),
            f"{layout.num_pages:,} pages of {layout.page_size} tokens, committed",
        ),
    ]


def _why_context(plan: StartPlan) -> str:
    memory = plan.memory
    if memory.context_cap is Cap.MEMORY:
        return f"cut from {memory.request.context_len:,}: the longest that memory holds"
    return "as asked for" if plan.settings.context else "what the model was trained on"


def _why_sessions(plan: StartPlan) -> str:
    if _sessions_cap(plan) is Cap.TIER:
        return f"{plan.settings.sessions:,} asked for; the limit of the {plan.tier.name} tier"
    return "each with a whole context" if plan.memory.request.num_sessions else "none asked for"


def _why_burst_slots(plan: StartPlan) -> str:
    if plan.memory.burst_cap is Cap.TIER:
        return f"the limit of the {plan.tier.name} tier"
    return "all that fit beside the sessions" if plan.memory.request.num_sessions else "all that fit"
