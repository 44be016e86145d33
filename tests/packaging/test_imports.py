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
        "onnxruntime",
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

FOR_GPU_BACKENDS = ROOT / "layerscale_core" / "gpu"
"""The part of core that may import torch and Triton, and that no other part imports."""


def imported_packages(module: Path) -> set[str]:
    """The top-level packages that a module's source imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_imports_what_its_package_must_not_know(package: str) -> None:
    wrong = {
        str(module.relative_to(ROOT)): names
        for module in (ROOT / package).rglob("*.py")
        if not module.is_relative_to(FOR_GPU_BACKENDS)
        if (names := imported_packages(module) & FORBIDDEN[package])
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


def test_nothing_else_in_core_imports_what_gpu_backends_share() -> None:
    importers = [
        str(module.relative_to(ROOT))
        for module in (ROOT / "layerscale_core").rglob("*.py")
        if not module.is_relative_to(FOR_GPU_BACKENDS) and "layerscale_core.gpu" in module.read_text()
    ]
    assert importers == []
