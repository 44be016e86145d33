"""What a process may use of its machine."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from layerscale_core.host import inspect_host

MIB = 1 << 20


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    host = inspect_host(tmp_path)
    assert host.total_memory_bytes == psutil.virtual_memory().total
    assert host.memory_limit_bytes is None
    assert host.cpu_limit is None
    assert 1 <= host.num_usable_cpus <= host.num_logical_cpus == os.cpu_count()
    assert host.cpu_name


def test_the_tightest_group_above_the_process_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/memory.max": f"{64 * MIB}\n",
            "sys/fs/cgroup/outer/memory.current": f"{48 * MIB}\n",
            "sys/fs/cgroup/outer/memory.stat": f"anon 1\ninactive_file {8 * MIB}\n",
            "sys/fs/cgroup/outer/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/outer/inner/memory.max": "max\n",
            "sys/fs/cgroup/outer/inner/cpu.max": "max 100000\n",
        },
    )
    host = inspect_host(tmp_path)
    assert host.memory_limit_bytes == host.total_memory_bytes == 64 * MIB
    assert host.available_memory_bytes == 24 * MIB
    assert host.cpu_limit == 0.5
    assert host.num_usable_cpus == 1


def test_version_1_groups_are_read_per_controller(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n2:pids:/\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{32 * MIB}\n",
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{40 * MIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    host = inspect_host(tmp_path)
    assert host.memory_limit_bytes == 32 * MIB
    assert host.available_memory_bytes == 0
    assert host.cpu_limit == 1.5


def test_a_group_that_the_container_does_not_see_is_its_root(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/machine/box\n", "sys/fs/cgroup/memory.max": f"{16 * MIB}\n"})
    assert inspect_host(tmp_path).memory_limit_bytes == 16 * MIB


@pytest.mark.parametrize("name", ["AMD EPYC 7763", "Intel(R) Xeon(R): a colon"])
def test_the_processor_is_named_as_it_names_itself(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: {name}\n"})
    assert inspect_host(tmp_path).cpu_name == name
