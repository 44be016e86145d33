"""What a start decides before it loads a weight: how long the context is, and what goes where."""

from __future__ import annotations

from dataclasses import dataclass

from layerscale_core.errors import StartupError
from layerscale_core.memory_plan import MemoryPlan, MemoryRequest, plan_memory
from layerscale_core.models import ModelSpec
from layerscale_core.specs import Backend, Device, DeviceInfo, KVType, MemoryNeeds, ModelFile, StepLimits, Tier
from layerscale_server.settings import MAX_CONTEXT_LEN, Settings, ignored_flags

_TOKENS_PER_STEP = 512
"""Token budget of a step: prefill runs near its best from here on, and a running answer waits for no more than this."""

_LOGITS_PER_STEP = 128
"""Rows of logits in a step: more only when prompts are scored, and then in several steps."""


@dataclass(frozen=True, slots=True)
class StartPlan:
    """One model on one device.

    Attributes:
        size_bytes: of the model's file.
        backend: its name.
        is_assumed: the available memory is not what was found but what the user wants to plan for.
        memory: what is committed.
    """

    spec: ModelSpec
    size_bytes: int
    backend: str
    device: DeviceInfo
    is_assumed: bool
    settings: Settings
    tier: Tier
    limits: StepLimits
    needs: MemoryNeeds
    memory: MemoryPlan


def plan_start(
    settings: Settings,
    tier: Tier,
    file: ModelFile,
    backend: Backend,
    device: Device,
    *,
    assumed_bytes: int | None = None,
) -> StartPlan:
    """Plan a model from its metadata; no weight is read and nothing is allocated.

    Args:
        assumed_bytes: plan as if the device had this much memory available.

    Raises:
        StartupError: the context is longer than the model was trained for, or the backend lacks the cache's precision.
        OutOfMemoryError: the model does not fit.
    """
    context_len = _context_len(settings, file.spec)
    limits = StepLimits(
        max_tokens=min(_TOKENS_PER_STEP, backend.capabilities.max_tokens_per_step or _TOKENS_PER_STEP),
        max_logits=_LOGITS_PER_STEP,
        max_context_len=context_len,
    )
    needs = device.memory_needs(file.spec, file.weights, limits)
    found_bytes = min(device.allocator.stats().free_bytes, device.infos[0].free_memory_bytes)
    request = MemoryRequest(
        context_len=context_len,
        num_sessions=min(settings.sessions, tier.max_sessions),
        max_burst_slots=tier.max_burst_slots,
        weights_bytes=needs.weights_bytes,
        available_bytes=found_bytes if assumed_bytes is None else assumed_bytes,
        page_size=backend.capabilities.page_sizes[0],
        workspace_bytes=needs.workspace_bytes,
        kv_type=_kv_type(settings, backend),
        kv_types=backend.capabilities.kv_types,
    )
    return StartPlan(
        spec=file.spec,
        size_bytes=file.size_bytes,
        backend=backend.name,
        device=device.infos[0],
        is_assumed=assumed_bytes is not None,
        settings=settings,
        tier=tier,
        limits=limits,
        needs=needs,
        memory=plan_memory(file.spec, request),
    )


def notices(settings: Settings, tier: Tier) -> list[str]:
    """What a user must know of settings that do not hold as given."""
    lines = []
    if flags := ignored_flags(settings):
        lines.append(f"{', '.join(flags)}: takes effect in a later version and changes nothing now")
    if settings.sessions > tier.max_sessions:
        lines.append(
            f"--sessions {settings.sessions} is more than the {tier.name} tier's limit of {tier.max_sessions}, "
            "which holds instead"
        )
    return lines


def _kv_type(settings: Settings, backend: Backend) -> KVType:
    wanted, known = KVType(settings.kv_cache_type), backend.capabilities.kv_types
    if wanted not in known:
        raise StartupError(
            f"--kv-cache-type {wanted} is not known to the {backend.name} backend; choose one of {', '.join(known)}"
        )
    return wanted


def _context_len(settings: Settings, spec: ModelSpec) -> int:
    wanted, trained = settings.context, spec.max_context_len
    if wanted > trained:
        raise StartupError(
            f"--context {wanted} is more than the {trained} tokens the model was trained for; "
            f"give at most {trained}, or 0 for just that"
        )
    return wanted or min(trained, MAX_CONTEXT_LEN)
