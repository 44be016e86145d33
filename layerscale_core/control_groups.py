"""The limits that Linux control groups set on this process, in either version of the hierarchy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """One group's limit.

    Attributes:
        used_bytes: what counts against it, without the file pages that the system drops under pressure.
    """

    limit_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        """What its processes may still take."""
        return max(0, self.limit_bytes - self.used_bytes)


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """The limits of this process's group and of all above it."""
    limits = []
    for folder in _own_folders(root, "memory"):
        limit = _count(folder / "memory.max", folder / "memory.limit_in_bytes")
        if limit is not None:
            used = _count(folder / "memory.current", folder / "memory.usage_in_bytes") or 0
            limits.append(MemoryLimit(limit, used - _droppable_bytes(folder)))
    return limits


def cpu_limits(root: Path = Path("/")) -> list[float]:
    """The CPU quotas of this process's group and of all above it, in cores."""
    limits = []
    for folder in _own_folders(root, "cpu"):
        quota_and_period = read_text(folder / "cpu.max").split() or [
            read_text(folder / "cpu.cfs_quota_us").strip(),
            read_text(folder / "cpu.cfs_period_us").strip(),
        ]
        if all(text.isdigit() for text in quota_and_period):  # no quota is "max", or -1
            quota, period = map(int, quota_and_period)
            limits.append(quota / period)
    return limits


def read_text(path: Path) -> str:
    """A small file of the kernel's; empty where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _own_folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and of all above it: version 2, and version 1 of one controller.

    Inside a container the named folder may not exist; its root then stands for it.
    """
    mount = root / "sys/fs/cgroup"
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = mount / controller if controllers else mount
        own = base / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(base))


def _count(*paths: Path) -> int | None:
    """The number in the first of these files that has one; ``max`` is none."""
    texts = (read_text(path).strip() for path in paths)
    return next((int(text) for text in texts if text.isdigit()), None)


def _droppable_bytes(folder: Path) -> int:
    lines = read_text(folder / "memory.stat").splitlines()
    counts = dict(line.split(" ", 1) for line in lines)
    return int(counts.get("inactive_file", 0))
