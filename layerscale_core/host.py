"""What this machine has: processor, cores and memory, as this process may use them."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from layerscale_core.control_groups import cpu_limits, memory_limits, read_text


@dataclass(frozen=True, slots=True)
class Host:
    """The machine as this process sees it.

    Attributes:
        cpu_name: as the processor calls itself.
        architecture: e.g. ``x86_64``.
        num_logical_cpus: hardware threads of the machine.
        num_usable_cpus: cores this process can keep busy: physical ones, within its affinity and CPU quota.
        total_memory_bytes: the machine's, or the limit of a control group if less.
        available_memory_bytes: what can be allocated now without swapping.
        memory_limit_bytes: the tightest limit of a control group that is less than the machine has, or None.
        cpu_limit: the tightest CPU quota in cores, or None.
    """

    cpu_name: str
    architecture: str
    num_logical_cpus: int
    num_usable_cpus: int
    total_memory_bytes: int
    available_memory_bytes: int
    memory_limit_bytes: int | None
    cpu_limit: float | None


def inspect_host(root: Path = Path("/")) -> Host:
    """Look at the machine.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """
    memory = psutil.virtual_memory()
    # Version 1 of control groups writes "no limit" as a number beyond any machine's memory.
    limits = [limit for limit in memory_limits(root) if limit.limit_bytes < memory.total]
    cpu_limit = min(cpu_limits(root), default=None)
    return Host(
        cpu_name=_cpu_name(root),
        architecture=platform.machine(),
        num_logical_cpus=os.cpu_count() or 1,
        num_usable_cpus=_num_usable_cpus(cpu_limit),
        total_memory_bytes=min([memory.total, *(limit.limit_bytes for limit in limits)]),
        available_memory_bytes=min([memory.available, *(limit.free_bytes for limit in limits)]),
        memory_limit_bytes=min((limit.limit_bytes for limit in limits), default=None),
        cpu_limit=cpu_limit,
    )


def _num_usable_cpus(cpu_limit: float | None) -> int:
    counts = [psutil.cpu_count(logical=False) or os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    if cpu_limit is not None:
        counts.append(math.ceil(cpu_limit))
    return max(1, min(counts))


def _cpu_name(root: Path) -> str:
    for line in read_text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
