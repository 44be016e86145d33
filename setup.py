"""Builds the CPU backend's native kernels, one extension module per instruction set.

Every module is compiled from the same sources, and the one to use is chosen at run time, so that a wheel built on any
machine runs on every machine of its architecture. The extensions are optional: without a compiler the package installs
all the same and computes with numpy.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

PACKAGE = "layerscale_backend_cpu"
SOURCES = sorted(str(path) for path in Path(PACKAGE, "native").glob("*.cpp"))
HEADERS = sorted(str(path) for path in Path(PACKAGE, "native").glob("*.h"))

X86_64_LEVELS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c", "-mbmi2"],
    # GCC 12's own AVX-512 headers trip this warning in code that initialises everything.
    "avx512": [
        "-Wno-uninitialized",
        "-Wno-maybe-uninitialized",
        "-mavx512f",
        "-mavx512bw",
        "-mavx512vl",
        "-mavx512dq",
        "-mavx512vnni",
        "-mfma",
        "-mf16c",
        "-mbmi2",
    ],
}
OTHER_LEVELS: dict[str, list[str]] = {"baseline": []}


def extensions() -> list[Pybind11Extension]:
    """One optional extension per instruction-set level of the architecture that is built for."""
    is_x86 = platform.machine().lower() in {"x86_64", "amd64"} and sys.platform != "win32"
    levels = X86_64_LEVELS if is_x86 else OTHER_LEVELS
    return [
        Pybind11Extension(
            f"{PACKAGE}._native_{level}",
            SOURCES,
            depends=HEADERS,
            cxx_std=17,
            define_macros=[("LAYERSCALE_MODULE", f"_native_{level}"), ("NDEBUG", None)],
            extra_compile_args=[
                "-O3",
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-pthread",
                *flags,
            ],
            extra_link_args=["-pthread"],
            optional=True,
        )
        for level, flags in levels.items()
    ]


ParallelCompile().install()
setup(ext_modules=extensions(), cmdclass={"build_ext": build_ext})
