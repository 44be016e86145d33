"""The native kernels under the address and undefined-behaviour sanitizers, at shapes around a vector's width."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from layerscale_backend_cpu.native_executor import native_isa, supported_levels

NATIVE = Path(__file__).parents[2] / "layerscale_backend_cpu" / "native"
SOURCES = ["matrix.cpp", "activations.cpp", "attention.cpp", "arena.cpp", "thread_pool.cpp"]
FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma", "-mf16c"],
}


@pytest.mark.slow
@pytest.mark.parametrize("level", FLAGS)
def test_kernels_stay_in_bounds_and_equal_plain_loops(level: str, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None or native_isa() is None:
        pytest.skip("needs g++ and compiled kernels")
    if level not in supported_levels():
        pytest.skip(f"this processor does not run {level}")
    program = tmp_path / "native_check"
    sources = [str(NATIVE / name) for name in SOURCES] + [str(Path(__file__).with_name("native_check.cpp"))]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    build = [compiler, "-std=c++17", "-O0", "-w", "-pthread", "-ffp-contract=off", f"-I{NATIVE}", *FLAGS[level]]
    subprocess.run([*build, *sanitize, *sources, "-o", str(program)], check=True, timeout=280)
    result = subprocess.run([str(program)], capture_output=True, text=True, timeout=250, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
