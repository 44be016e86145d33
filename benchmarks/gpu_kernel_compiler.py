"""Compiles the GPU kernels for a device that is not there, and reads off what a program takes of it.

The launchers themselves say how: a launch compiles, and does not run. A process that did this launches nothing more.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_86": GPUTarget("cuda", 86, 32),
    "sm_89": GPUTarget("cuda", 89, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx90a": GPUTarget("hip", "gfx90a", 64),
    "gfx942": GPUTarget("hip", "gfx942", 64),
    "gfx950": GPUTarget("hip", "gfx950", 64),
    "gfx1100": GPUTarget("hip", "gfx1100", 32),
}

SHARED_KIB = {
    "sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99,
    "gfx90a": 64, "gfx942": 64, "gfx950": 160, "gfx1100": 64,
}  # fmt: skip
"""Most shared memory that a program may have: CUDA C programming guide, table of compute capabilities; AMD's LDS."""

_MATRIX_INSTRUCTION = re.compile(
    r"(wgmma\.mma_async\S*\.m\d+n\d+k\d+|mma\.sync\S*\.m\d+n\d+k\d+|tcgen05\.mma\b|v_w?mf?ma_f32_\w+)"
)

_REDUCTION = re.compile(r'"tt\.reduce"\(.*?\}\) :', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one program of a kernel takes.

    Attributes:
        registers: 32-bit registers a thread, accumulation registers included.
        spill_bytes: memory a thread that stands in for registers.
        shared_bytes: memory that a program's threads share.
        matrix_instructions: how products are computed, without their types.
        waits_for_stores: whether every wave's stores have arrived before the program counts itself as done.
        adds_floats: whether floats of several threads are added in an order that the compiler chose.
    """

    kernel: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    matrix_instructions: tuple[str, ...]
    waits_for_stores: bool
    adds_floats: bool


class _AbsentDevice:
    """Triton's driver, as far as compiling asks it."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> GPUTarget:
        """Compiled kernels are kept by device: each target has its own."""
        return self._target

    def get_current_stream(self, device: object) -> int:  # noqa: ARG002
        return 0


def compile_launches(target: str, launch: Callable[[], None]) -> list[Resources]:
    """Compile every kernel that a function launches, launching none.

    Raises:
        triton.CompilationError: a kernel cannot be compiled for the target.
    """
    compiled: list[Resources] = []
    with _compiling_only(TARGETS[target], compiled):
        launch()
    return compiled


@contextlib.contextmanager
def _compiling_only(target: GPUTarget, compiled: list[Resources]) -> Iterator[None]:
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:  # noqa: ARG001
        log = io.StringIO()
        with contextlib.redirect_stdout(log):
            kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        compiled.append(_resources(self.__name__, kernel, log.getvalue()))
        return kernel

    with knobs.nvidia.scope(), knobs.compilation.scope():
        knobs.nvidia.dump_ptxas_log = knobs.compilation.always_compile = True
        driver.set_active(_AbsentDevice(target))
        JITFunction.run = compile_only
        try:
            yield
        finally:
            JITFunction.run = run


def _resources(name: str, kernel: Any, log: str) -> Resources:
    if "ptx" in kernel.asm:
        code = kernel.asm["ptx"]
        registers = _first(r"Used (\d+) registers", log)
        spill_bytes = _first(r"(\d+) bytes spill stores", log)
        waits_for_stores = True  # what its barrier and its fences mean: PTX ISA, memory consistency model
    else:
        code = kernel.asm["amdgcn"]
        # A total of both kinds where they share one file, as from gfx90a on.
        registers = _first(r"\.vgpr_count:\s+(\d+)", code)
        spill_bytes = 4 * _first(r"\.vgpr_spill_count:\s+(\d+)", code)
        waits_for_stores = _waits_for_stores(code)
    instructions = {re.sub(r"(\.sync|\.aligned|\.row|\.col)", "", found) for found in _MATRIX_INSTRUCTION.findall(code)}
    return Resources(
        name,
        registers,
        spill_bytes,
        kernel.metadata.shared,
        tuple(sorted(instructions)),
        waits_for_stores,
        any("arith.addf" in body for body in _REDUCTION.findall(kernel.asm["ttgir"])),
    )


def _waits_for_stores(code: str) -> bool:
    """Whether AMD's code waits for its stores before the barrier in front of its atomic addition, if it has one.

    The barrier waits for no store. RDNA counts stores by themselves (``vscnt``), CDNA with loads (``vmcnt``).
    """
    before, addition, _ = code.partition("global_atomic_add")
    wait = r"s_waitcnt_vscnt null, 0x0" if "gfx11" in code else r"s_waitcnt vmcnt\(0\)"
    in_order = re.findall(rf"_(store)_|s_(barrier)|({wait})", before)
    kinds = "".join("S" if store else "B" if barrier else "W" for store, barrier, _ in in_order)
    return not addition or re.search(r"WB+W*$", kinds) is not None


def _first(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"no {pattern!r} in what the compiler wrote"
    return int(found[1])
