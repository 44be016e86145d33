"""Compiles every GPU kernel for every device, without any, and prints what a program takes of it.

``python benchmarks/gpu_kernel_resources.py --write benchmarks/results/gpu-kernel-resources.md`` takes half an hour on
two cores. Ends with status 1 where a bound is broken: more shared memory than the device has, or more spilled than
``MAX_SPILL_BYTES``; where a program of several says that it is done before what it stored has arrived; and where a sum
of a layer's kernels follows the compiler's choice of which thread holds what.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from gpu_kernel_cases import cases
from gpu_kernel_compiler import SHARED_KIB, TARGETS, Resources, compile_launches

from layerscale_backend_cuda.vendor import NVIDIA
from layerscale_backend_rocm.vendor import AMD
from layerscale_core.gpu.tuning import PORTABLE

TUNINGS = {**NVIDIA.tunings, **AMD.tunings}
"""What the kernels are launched with on each device."""

MAX_SPILL_BYTES = {"heads of 256": 3072, "decode": 32, "prefill": 512, "": 1024}
"""A thread, by kind of step: decode waits for memory already. In prefill attention holds two sums of values, and sets
one aside while it walks a partition. Heads of 256 are rotated at a tile's end with what else it holds set aside. Keys
that are stored by themselves are no part of a layer's five kernels."""

HEADER = (
    "| case | device | registers | spilled, bytes | shared, bytes | matrix instructions |\n|---|---|---|---|---|---|"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--cases", default="", help="only those whose name has this in it")
    parser.add_argument("--write", type=Path, help="a file for the table")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    options = parser.parse_args(arguments)
    if options.list:
        print(*cases(PORTABLE), sep="\n")
        return 0
    print(HEADER, flush=True)
    rows: list[str] = []
    broken: list[str] = []
    for case in cases(PORTABLE):
        if options.cases not in case:
            continue
        for target in options.targets:
            for resources in compile_launches(target, cases(TUNINGS[target])[case]):
                rows.append(row(case, target, resources))
                broken += broken_bounds(case, target, resources)
                print(rows[-1], flush=True)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text("\n".join([*preamble(), HEADER, *rows, ""]))
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken or not rows else 0


def row(case: str, target: str, found: Resources) -> str:
    """A line of the table."""
    instructions = ", ".join(f"`{instruction}`" for instruction in found.matrix_instructions) or "none"
    return f"| {case} | {target} | {found.registers} | {found.spill_bytes} | {found.shared_bytes:,} | {instructions} |"


def broken_bounds(case: str, target: str, found: Resources) -> list[str]:
    """Where a kernel takes more than it may."""
    max_spill_bytes = next(most for kind, most in MAX_SPILL_BYTES.items() if kind in case)
    broken = []
    if found.spill_bytes > max_spill_bytes:
        broken.append(f"{case} on {target} spills {found.spill_bytes} bytes; at most {max_spill_bytes} may be")
    if found.shared_bytes > SHARED_KIB[target] * 1024:
        broken.append(
            f"{case} on {target} takes {found.shared_bytes:,} bytes of {SHARED_KIB[target]} KiB shared memory"
        )
    if not found.waits_for_stores:
        broken.append(f"{case} on {target} counts a program as done before all of its stores have arrived")
    if found.adds_floats and any(step in case for step in ("decode", "prefill")):
        broken.append(f"{case} on {target} adds floats in an order that depends on the tile, and so on the batch")
    return broken


def preamble() -> list[str]:
    """What a stranger must know to repeat it."""
    return [
        "# What the GPU kernels take of each device",
        "",
        "Compiled ahead of time without a GPU, with each device's own tuning.",
        "Nothing was run, and nothing here is a speed.",
        f"`python benchmarks/gpu_kernel_resources.py --write FILE`, Triton {version('triton')}, {platform.machine()}.",
        "An 8B-shaped model: hidden size 4,096, heads of 128 in groups of four, bfloat16; prefill of 256 tokens.",
        "Beside it heads of 256 with norms of their own, and a router of 128 experts in float32.",
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
