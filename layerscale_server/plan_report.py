"""The memory plan in the log: a table for people, one object for machines."""

from __future__ import annotations

from layerscale_core.memory_plan import MemoryPlan
from layerscale_core.specs import Device, ModelFile
from layerscale_server.logging import AS_TABLE, get_logger

_MIB = 1 << 20

logger = get_logger("layerscale.plan")


def log_plan(plan: MemoryPlan, file: ModelFile, backend: str, device: Device) -> None:
    """Say what will be loaded where, and how much memory it takes, before it is."""
    if plan.is_clamped:
        logger.warning(
            f"a context of {plan.request.context_len} tokens does not fit in memory and is cut to {plan.context_len}"
        )
    logger.info("memory plan", **{AS_TABLE: True}, **_numbers(plan, file, backend, device))


def _numbers(plan: MemoryPlan, file: ModelFile, backend: str, device: Device) -> dict[str, object]:
    return {
        "architecture": file.spec.architecture,
        "parameters": file.spec.num_parameters,
        "backend": backend,
        "device": device.infos[0].description,
        "available_mib": plan.request.available_bytes // _MIB,
        "weights_mib": plan.request.weights_bytes // _MIB,
        "kv_cache_mib": plan.layout.total_bytes // _MIB,
        "kv_bytes_per_token": plan.layout.bytes_per_token,
        "kv_tokens": plan.layout.num_pages * plan.layout.page_size,
        "context": plan.context_len,
        "burst_slots": plan.burst_slots,
    }
