"""Kernels compile for every device, without one, and stay within what it has.

A sample: ``benchmarks/gpu_kernel_resources.py`` does all, and its table is kept in ``benchmarks/results``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documentation import ROOT

pytest.importorskip("triton", reason="Triton is made for Linux on x86-64")

pytestmark = pytest.mark.slow

BENCHMARKS = ROOT / "benchmarks"
NVIDIA = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
TARGETS = (*NVIDIA, "gfx90a", "gfx942", "gfx950", "gfx1100")
KEPT = BENCHMARKS / "results" / "gpu-kernel-resources.md"


@pytest.mark.parametrize(
    ("case", "targets"),
    [
        ("linear, decode, 4-bit weights", TARGETS),
        ("decode, heads of 256, 8-bit", ("gfx942",)),
    ],
    ids=["linear", "projection and attention of wide heads"],
)
def test_kernels_compile_within_their_bounds(case: str, targets: tuple[str, ...], tmp_path: Path) -> None:
    """Among them: no sum follows the layout of a tile, which is another in decode and in prefill."""
    table = tmp_path / "table.md"
    command = [sys.executable, "-W", "error", str(BENCHMARKS / "gpu_kernel_resources.py"), "--cases", case]
    result = subprocess.run(
        [*command, "--targets", *targets, "--write", str(table)],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line.split(" | ") for line in table.read_text().splitlines() if case in line]
    kernels = {row[0] for row in rows}
    assert {(row[0], row[1]) for row in rows} == {(kernel, target) for kernel in kernels for target in targets} != set()
    assert all(row[-1] != "none |" for row in rows), "products go through matrix instructions"


def test_tiles_of_every_width_go_through_one_matrix_instruction() -> None:
    """Which one sums decides the order of sums; how many columns it takes at a time does not."""
    instructions: dict[tuple[str, str], set[str]] = {}
    rows = [line.strip("| ").split(" | ") for line in KEPT.read_text().splitlines() if line.startswith("| ")]
    for case, target, *_, found in rows:
        kernel, _, rest = case.partition(", ")
        step, _, bits = rest.partition(", ")
        if step in ("decode", "prefill"):
            any_width = re.sub(r"(m\d+)n\d+(k\d+)", r"\1\2", found)
            instructions.setdefault((f"{kernel}, {bits}", target), set()).add(any_width)
    assert {target for _, target in instructions} == set(TARGETS)
    assert {key: found for key, found in instructions.items() if len(found) > 1} == {}


def test_the_kept_table_has_every_case_on_every_device() -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu_kernel_resources.py"), "--list"]
    listed = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    kept = {tuple(line.split(" | ")[:2]) for line in KEPT.read_text().splitlines() if line.startswith("| ")}
    missing = [
        f"{case} on {target}"
        for case in listed.stdout.splitlines()
        for target in TARGETS
        if (f"| {case}", target) not in kept
    ]
    assert missing == []
