"""The GPU backends keep the backend contract, where their device is."""

from __future__ import annotations

import importlib

import pytest

from layerscale_core.conformance import BackendContract


class GpuContract(BackendContract):
    """The contract, skipped with the probe's reason where there is no such device."""

    max_relative_error = 0.02  # products are computed in bfloat16, which keeps 8 bits

    @pytest.fixture(autouse=True)
    def need_device(self) -> None:
        [backend] = importlib.import_module(self.plugin_module).layerscale_backends()
        probe = backend.probe()
        if probe.score == 0:
            pytest.skip(probe.reason)


@pytest.mark.cuda
class TestCuda(GpuContract):
    plugin_module = "layerscale_backend_cuda.plugin"


@pytest.mark.rocm
class TestRocm(GpuContract):
    plugin_module = "layerscale_backend_rocm.plugin"
