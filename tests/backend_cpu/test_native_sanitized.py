"""The native kernels against plain loops, at shapes around a vector's width: under sanitizers, and on arm64."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from layerscale_backend_cpu.native_executor import native_isa, supported_levels

NATIVE = Path(__file__).parents[2] / "layerscale_backend_cpu" / "native"
SOURCES = [
    path.name for path in sorted(NATIVE.glob("*.cpp")) if path.name not in ("executor.cpp", "mixture.cpp", "module.cpp")
]
FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma", "-mf16c"],
}

pytestmark = pytest.mark.slow


def build_check(compiler: str, program: Path, flags: list[str]) -> None:
    command = [compiler, "-std=c++17", "-w", "-pthread", "-ffp-contract=off", f"-I{NATIVE}", *flags]
    sources = [NATIVE / name for name in SOURCES] + [Path(__file__).with_name("native_check.cpp")]
    subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True, timeout=280)


def run_check(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("level", FLAGS)
def test_kernels_stay_in_bounds_and_equal_plain_loops(level: str, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None or native_isa() is None:
        pytest.skip("needs g++ and compiled kernels")
    if level not in supported_levels():
        pytest.skip(f"this processor does not run {level}")
    program = tmp_path / "native_check"
    # Unoptimised: with everything inlined, the sanitizers' checks take the compiler minutes otherwise.
    checks = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    build_check(compiler, program, [*checks, *FLAGS[level]])
    run_check(str(program))


def test_arm64_kernels_equal_plain_loops_under_emulation(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64-static")
    program = tmp_path / "native_check"
    build_check(compiler, program, ["-O1", "-static"])  # emulated, what is not optimised takes thrice as long
    run_check(emulator, str(program))
