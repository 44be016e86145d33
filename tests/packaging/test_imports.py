"""Imports point one way, and importing core is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documentation import ROOT

FORBIDDEN = {
    "layerscale_core": {
        "layerscale_server",
        "layerscale_backend_cpu",
        "layerscale_backend_cuda",
        "layerscale_backend_rocm",
        "torch",
        "triton",
        "fastapi",
        "starlette",
        "uvicorn",
    },
    "layerscale_backend_cpu": {"layerscale_server", "torch", "fastapi", "starlette", "uvicorn"},
    "layerscale_backend_cuda": {"layerscale_server", "layerscale_backend_cpu", "layerscale_backend_rocm", "torch"},
    "layerscale_backend_rocm": {"layerscale_server", "layerscale_backend_cpu", "layerscale_backend_cuda", "torch"},
    "layerscale_server": {"layerscale_backend_cpu", "layerscale_backend_cuda", "layerscale_backend_rocm", "torch"},
}
"""What no module of a package names in an import, wherever the import stands."""

FOR_GPU_BACKENDS = "layerscale_core/gpu"
"""The part of core that only they import, and that may name torch and Triton."""


def imported_packages(module: Path) -> set[str]:
    """The top-level packages that a module's source imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def forbidden(module: Path, package: str) -> set[str]:
    """What a module of a package must not name."""
    needs_torch = module.is_relative_to(ROOT / FOR_GPU_BACKENDS)
    return FORBIDDEN[package] - {"torch", "triton"} if needs_torch else FORBIDDEN[package]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_imports_what_its_package_must_not_know(package: str) -> None:
    wrong = {
        str(module.relative_to(ROOT)): names
        for module in (ROOT / package).rglob("*.py")
        if (names := imported_packages(module) & forbidden(module, package))
    }
    assert wrong == {}


def test_importing_core_loads_neither_a_vendor_package_nor_a_web_framework_nor_torch() -> None:
    code = f"""
import importlib, pkgutil, sys
import layerscale_core
for module in pkgutil.walk_packages(layerscale_core.__path__, "layerscale_core."):
    if not module.name.startswith(("layerscale_core.conformance", "layerscale_core.gpu")):
        importlib.import_module(module.name)
loaded = {{name.split(".")[0] for name in sys.modules}}
print(*sorted(loaded & {FORBIDDEN["layerscale_core"]!r}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
