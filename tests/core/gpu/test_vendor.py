"""What must be there for a vendor's GPUs to serve, found without importing torch."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from layerscale_core.errors import BackendError
from layerscale_core.gpu import installed_torch, vendor
from layerscale_core.gpu.backend import GpuBackend
from layerscale_core.gpu.installed_torch import InstalledTorch, read_version
from layerscale_core.gpu.tuning import PORTABLE
from layerscale_core.gpu.vendor import Vendor
from layerscale_core.gpu.vendor_device import architecture_of

VENDOR = Vendor("acme", "Acme", "cuda", lambda: "1 Acme GPU", {"sm_90": PORTABLE})

_PROBE = """
import sys
from layerscale_core.plugins import PluginRegistry
backends = PluginRegistry.discover().backends()
reasons = [backend.item.probe().reason for backend in backends if backend.item.name in ("cuda", "rocm")]
print(len(reasons), all(reasons), "torch" in sys.modules, "triton" in sys.modules)
"""


def test_torchs_own_words_are_read() -> None:
    cuda = "__version__ = '2.13.0+cu130'\ndebug = False\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
    assert read_version(cuda) == InstalledTorch("2.13.0+cu130", {"cuda": "13.0"})
    assert read_version("__version__ = '2.9.1'\nhip = '7.1'\n") == InstalledTorch("2.9.1", {"hip": "7.1"})
    assert read_version("") == InstalledTorch("of an unknown version", {})


@pytest.mark.parametrize(
    ("torch", "reason"),
    [
        (
            InstalledTorch("2.13.0+cpu", {}),
            "torch 2.13.0+cpu is a CPU build and drives no Acme GPU; see https://pytorch",
        ),
        (InstalledTorch("2.9.1", {"hip": "7.1"}), "torch 2.9.1 is a hip build and drives no Acme GPU"),
    ],
)
def test_a_torch_for_something_else_is_named(
    monkeypatch: pytest.MonkeyPatch, torch: InstalledTorch, reason: str
) -> None:
    monkeypatch.setattr(vendor, "find_torch", lambda extra: torch)
    probe = GpuBackend(VENDOR).probe()
    assert probe.score == 0
    assert probe.reason.startswith(reason)


@pytest.mark.parametrize("missing", ["torch", "triton"])
def test_what_is_not_installed_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(
        installed_torch.importlib.util, "find_spec", lambda name: None if name == missing else SimpleNamespace()
    )
    assert GpuBackend(VENDOR).probe().reason == f"{missing} is not installed: pip install 'layerscale-engine[acme]'"


def test_a_machine_with_everything_scores_above_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "find_torch", lambda extra: InstalledTorch("2.13.0", {"cuda": "13.0"}))
    probe = GpuBackend(VENDOR).probe()
    assert (probe.score, probe.reason) == (100, "1 Acme GPU, torch 2.13.0 for cuda 13.0")


def test_a_device_that_torch_cannot_use_is_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "find_torch", lambda extra: InstalledTorch("2.13.0", {"cuda": "13.0"}))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BackendError, match=r"torch 2.* finds no Acme GPU that it can use"):
        GpuBackend(VENDOR).load(None)


def test_architectures_are_named_as_compilers_name_them() -> None:
    assert architecture_of(SimpleNamespace(major=9, minor=0)) == "sm_90"
    assert architecture_of(SimpleNamespace(major=9, minor=4, gcnArchName="gfx942:sramecc+:xnack-")) == "gfx942"


def test_listing_and_probing_imports_neither_torch_nor_triton() -> None:
    result = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["2", "True", "False", "False"]
