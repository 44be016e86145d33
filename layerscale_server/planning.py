"""What a start decides before it loads a weight: how long the context is, and what goes where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from layerscale_core.errors import StartupError
from layerscale_core.memory_plan import MemoryPlan, MemoryRequest, find_plan, refusal
from layerscale_core.models import ModelSpec
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import ActivationType, Backend, BackendOptions, KVType, ModelFile, StepLimits, Tier
from layerscale_server.placement import Offloading, Placement, Site, place_whole
from layerscale_server.settings import MAX_CONTEXT_LEN, Settings


@dataclass(frozen=True, slots=True)
class StartPlan:
    """One model on one device.

    Attributes:
        size_bytes: of the model's file.
        site: the device.
        placement: which layers are where.
        memory: what is committed.
    """

    spec: ModelSpec
    size_bytes: int
    site: Site
    settings: Settings
    tier: Tier
    placement: Placement
    memory: MemoryPlan

    @property
    def limits(self) -> StepLimits:
        """The largest step."""
        return self.placement.limits


def plan_start(
    settings: Settings,
    tier: Tier,
    file: ModelFile,
    site: Site,
    registry: PluginRegistry,
    *,
    assumed_host_bytes: int | None = None,
) -> StartPlan:
    """Plan a model from its metadata; no weight is read and nothing is allocated.

    Args:
        site: the device that serves.
        registry: asked who chooses, and who computes, the layers that stay on the host; not before some are to.
        assumed_host_bytes: plan as if so much host memory were available for those.

    Raises:
        StartupError: the context is longer than the model was trained for, or the backend lacks the cache's precision.
        OutOfMemoryError: the model does not fit.
    """
    budgets = _Budgets(settings, file, site, registry, assumed_host_bytes)

    def request_at(budget_gib: float) -> tuple[Placement, MemoryRequest]:
        placement = budgets.place(budget_gib)
        return placement, _memory_request(settings, tier, site, placement)

    placement, request = request_at(settings.cpu_offload_gb)
    memory = find_plan(file.spec, request)
    if memory is None:
        fitting = budgets.first(lambda budget_gib: find_plan(file.spec, request_at(budget_gib)[1]) is not None)
        remedy = None if fitting is None else f"--cpu-offload-gb {fitting:g}"
        raise refusal(file.spec, request, further_remedy=remedy)
    return StartPlan(file.spec, file.size_bytes, site, settings, tier, placement, memory)


class _Budgets:
    """What each budget for CPU offload makes of a model. The host is loaded when it is first needed."""

    def __init__(
        self, settings: Settings, file: ModelFile, site: Site, registry: PluginRegistry, host_bytes: int | None
    ) -> None:
        self._settings, self._file, self._site = settings, file, site
        self._registry, self._host_bytes = registry, host_bytes
        self._context_len = _context_len(settings, file.spec)

    def place(self, budget_gib: float) -> Placement:
        """Which layers go where."""
        if budget_gib == 0 or self._site.backend.capabilities.is_host:
            return place_whole(self._file, self._site, self._context_len)
        return self._offloading.place(budget_gib)

    def first(self, fits: Callable[[float], bool]) -> float | None:
        """The least budget that fits, 0 included; None when none does, or when there is nowhere to offload to."""
        if self._site.backend.capabilities.is_host:
            return None
        try:
            return next(filter(fits, (0, *self._offloading.budgets_gib())), None)
        except StartupError:  # what hinders an offload that nobody asked for is not the news
            return None

    @cached_property
    def _offloading(self) -> Offloading:
        host = self._registry.choose_host_backend()
        # Offloaded layers belong to a device that multiplies in floats; rounded as little as can be, they say the same.
        finest = max(host.backend.capabilities.activation_types, key=lambda each: each.num_bits, default=None)
        site = Site(host.backend, host.load(BackendOptions(self._settings.threads, finest)), self._host_bytes)
        return Offloading(self._file, self._site, site, self._registry.make_offload_planner(), self._context_len)


def _memory_request(settings: Settings, tier: Tier, site: Site, placement: Placement) -> MemoryRequest:
    share, host = placement.share, placement.host
    return MemoryRequest(
        context_len=placement.limits.max_context_len,
        num_sessions=min(settings.sessions, tier.max_sessions),
        max_burst_slots=tier.max_burst_slots,
        weights_bytes=share.weights_bytes,
        available_bytes=share.available_bytes,
        page_size=placement.page_size,
        workspace_bytes=share.workspace_bytes,
        num_host_layers=len(host.layers) if host else 0,
        host=host.share if host else None,
        kv_type=_kv_type(settings, site, placement),
        kv_types=placement.kv_types,
    )


def notices(settings: Settings, tier: Tier) -> list[str]:
    """What a user must know of settings that do not hold as given."""
    lines = []
    if settings.sessions > tier.max_sessions:
        lines.append(
            f"--sessions {settings.sessions} is more than the {tier.name} tier's limit of {tier.max_sessions}, "
            "which holds instead"
        )
    return lines


def backend_options(settings: Settings, backend: Backend) -> BackendOptions:
    """What the user asked of the backend that was chosen.

    Raises:
        StartupError: it does not know the type of activations.
    """
    if settings.activation_type is None:
        return BackendOptions(settings.threads)
    wanted, known = ActivationType(settings.activation_type), backend.capabilities.activation_types
    if wanted not in known:
        remedy = f"choose one of {', '.join(known)}" if known else "leave it out: activations stay floats there"
        raise StartupError(f"--activation-type {wanted} is not known to the {backend.name} backend; {remedy}")
    return BackendOptions(settings.threads, wanted)


def _kv_type(settings: Settings, site: Site, placement: Placement) -> KVType:
    wanted, known = KVType(settings.kv_cache_type), placement.kv_types
    if wanted not in known:
        sites = [site, placement.host.site] if placement.host else [site]
        names = " and ".join(each.backend.name for each in sites)
        raise StartupError(
            f"--kv-cache-type {wanted} is not known to the {names} backend; choose one of {', '.join(known)}"
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
