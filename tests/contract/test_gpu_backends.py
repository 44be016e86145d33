"""The GPU backends and their kernels keep their contracts, where their device is."""

from __future__ import annotations

import importlib
from typing import ClassVar

import pytest

from layerscale_core.conformance import BackendContract, KernelsContract


class NeedsDevice:
    """Skipped with the probe's reason where there is no such device."""

    plugin_module: ClassVar[str]
    # Products are computed in bfloat16, which keeps 8 bits. Emulated, they deviate by up to 0.02 where nothing is
    # chosen by them, and by 0.073 where keys become codes of 4 bits, for which the kit allows 0.05 more.
    max_relative_error = 0.03
    # Emulated, models with experts then deviate by up to 0.013, and without it by up to 0.08.
    min_expert_margin = 0.1

    @pytest.fixture(autouse=True)
    def need_device(self) -> None:
        [backend] = importlib.import_module(self.plugin_module).layerscale_backends()
        probe = backend.probe()
        if probe.score == 0:
            pytest.skip(probe.reason)


@pytest.mark.cuda
class TestCuda(NeedsDevice, BackendContract):
    plugin_module = "layerscale_backend_cuda.plugin"


@pytest.mark.cuda
class TestCudaKernels(NeedsDevice, KernelsContract):
    plugin_module = "layerscale_backend_cuda.plugin"


@pytest.mark.rocm
class TestRocm(NeedsDevice, BackendContract):
    plugin_module = "layerscale_backend_rocm.plugin"


@pytest.mark.rocm
class TestRocmKernels(NeedsDevice, KernelsContract):
    plugin_module = "layerscale_backend_rocm.plugin"
