"""The memory plan as people and machines read it: the same table in the log and from ``layerscale plan``."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable

from layerscale_core.memory_plan import KV_SHARE, Cap, MemoryShare
from layerscale_core.models import ModelSpec
from layerscale_core.models.spec import layer_shapes
from layerscale_core.offload import layer_ranges
from layerscale_server.placement import Site
from layerscale_server.planning import StartPlan
from layerscale_server.sizes import readable
from layerscale_server.text import printable

_WIDTH = 118


def plan_warnings(plan: StartPlan) -> list[str]:
    """Where the plan is less than what was asked for."""
    memory = plan.memory
    lines = _offload_warnings(plan)
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


def _offload_warnings(plan: StartPlan) -> list[str]:
    backend, host = plan.site.backend, plan.placement.host
    if plan.settings.cpu_offload_gb and backend.capabilities.is_host:
        return [f"--cpu-offload-gb changes nothing on the {backend.name} backend: all weights are in CPU memory anyway"]
    if host is None:
        return []
    num_layers, num_on_host = len(plan.spec.layers), len(host.layers)
    return [
        f"{num_on_host} of {num_layers} layers ({layer_ranges(host.layers)}) stay in CPU memory, with "
        f"{readable(host.share.weights_bytes)} of weights, and {num_layers - num_on_host} are on the device, with "
        f"{readable(plan.placement.share.weights_bytes)}, embedding and output head included; the CPU sets the pace of "
        "every answer"
    ]


def plan_lines(plan: StartPlan) -> list[str]:
    """The table, line by line, in plain text."""
    rows = [[printable(cell) for cell in row] for row in _rows(plan)]
    names, values, _ = ([len(cell) for cell in column] for column in zip(*rows, strict=True))
    lines = []
    for name, value, note in rows:
        head = f"{name:<{max(names)}}  {value:<{max(values)}}  "
        wrapped = textwrap.wrap(
            note, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
        )
        lines += wrapped or [head.rstrip()]
    return lines


def plan_fields(plan: StartPlan) -> dict[str, object]:
    """The same for machines; sizes in bytes."""
    memory, layout, request = plan.memory, plan.memory.layout, plan.memory.request
    return {
        "architecture": plan.spec.architecture,
        "parameters": plan.spec.num_parameters,
        "layers": len(plan.spec.layers),
        "file_bytes": plan.size_bytes,
        "backend": plan.site.backend.name,
        "device": plan.site.device.infos[0].description,
        "tier": plan.tier.name,
        "available_bytes": request.available_bytes,
        "weights_bytes": request.weights_bytes,
        "workspace_bytes": request.workspace_bytes,
        "headroom_bytes": request.device.headroom_bytes,
        "kv_budget_bytes": request.device.budget_bytes,
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
        "cpu_offload": _offload_fields(plan),
    }


def _offload_fields(plan: StartPlan) -> dict[str, object] | None:
    """The host's side; the fields above are the device's, but for those of the KV cache, which are of both."""
    host = plan.placement.host
    if host is None:
        return None
    share = host.share
    return {
        "layers": list(host.layers),
        "backend": host.site.backend.name,
        "available_bytes": share.available_bytes,
        "weights_bytes": share.weights_bytes,
        "workspace_bytes": share.workspace_bytes,
        "headroom_bytes": share.headroom_bytes,
        "kv_budget_bytes": share.budget_bytes,
        "kv_cache_bytes": plan.memory.host_layout.total_bytes,
    }


def _sessions_cap(plan: StartPlan) -> Cap:
    return Cap.TIER if plan.settings.sessions > plan.tier.max_sessions else Cap.WISH


def _rows(plan: StartPlan) -> list[tuple[str, str, str]]:
    return [*_device_rows(plan), *_host_rows(plan), *_cache_rows(plan)]


def _device_rows(plan: StartPlan) -> list[tuple[str, str, str]]:
    """What there is, and what the model takes of it."""
    spec, site, share, host = plan.spec, plan.site, plan.placement.share, plan.placement.host
    host_layers = host.layers if host else ()
    num_parameters = spec.num_parameters - _num_parameters(spec, host_layers)
    which = f"{len(spec.layers) - len(host_layers)} layers, embedding and output head" if host_layers else "all layers"
    size = f"{readable(plan.size_bytes)} in the file"
    return [
        ("model", spec.architecture, f"{spec.num_parameters:,} parameters, {len(spec.layers)} layers, {size}"),
        ("device", site.backend.name, site.device.infos[0].description),
        *_share_rows("", site, share, f"{which}, {_bits(share, num_parameters)}", f"{_step(plan)} and its logits"),
    ]


def _host_rows(plan: StartPlan) -> list[tuple[str, str, str]]:
    """The same for the layers in CPU memory, if there are any."""
    host = plan.placement.host
    if host is None:
        return []
    bits = _bits(host.share, _num_parameters(plan.spec, host.layers))
    computed = f"computed there by the kernels of the {host.site.backend.name} backend"
    return [
        ("CPU layers", f"{len(host.layers)} of {len(plan.spec.layers)}", f"{layer_ranges(host.layers)}, {computed}"),
        *_share_rows("CPU ", host.site, host.share, bits, _step(plan)),
    ]


def _share_rows(
    prefix: str, site: Site, share: MemoryShare, weights: str, workspace: str
) -> list[tuple[str, str, str]]:
    """One memory, from what it has to what is left for the KV cache."""
    found = f"of {readable(site.device.infos[0].total_memory_bytes)}, as this process may use them"
    rows = [
        ("available", share.available_bytes, found if site.assumed_bytes is None else "assumed"),
        ("weights", share.weights_bytes, weights),
        ("workspace", share.workspace_bytes, workspace),
        ("headroom", share.headroom_bytes, f"{1 - KV_SHARE:.0%} of the rest, for the process"),
        ("KV budget", share.budget_bytes, "what is left"),
    ]
    return [(prefix + name, readable(num_bytes), reason) for name, num_bytes, reason in rows]


def _step(plan: StartPlan) -> str:
    return f"a step of {plan.limits.max_tokens} tokens"


def _num_parameters(spec: ModelSpec, layers: Iterable[int]) -> int:
    return sum(math.prod(shape) for layer in layers for shape in layer_shapes(spec, layer).values())


def _bits(share: MemoryShare, num_parameters: int) -> str:
    return f"{8 * share.weights_bytes / num_parameters:.2f} bits a parameter"


def _cache_rows(plan: StartPlan) -> list[tuple[str, str, str]]:
    """What is committed for whom, and why it is not more."""
    memory, layout, request = plan.memory, plan.memory.layout, plan.memory.request
    page_bytes = layout.page_size * layout.bytes_per_token
    where = f", {readable(memory.host_layout.total_bytes)} of it in CPU memory" if request.num_host_layers else ""
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
            f"{layout.num_pages:,} pages of {layout.page_size} tokens, committed{where}",
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
