"""The CPU backend keeps the backend contract, at every level of native kernels and with numpy."""

from __future__ import annotations

from typing import ClassVar

import pytest

from layerscale_backend_cpu.native_executor import ISA_VARIABLE, native_isa
from layerscale_core.conformance import BackendContract, KernelsContract
from layerscale_core.errors import BackendError
from layerscale_core.specs import ActivationType, BackendOptions


class CpuContract(BackendContract):
    """The contract with the level forced."""

    plugin_module = "layerscale_backend_cpu.plugin"
    options = BackendOptions(num_threads=2, activation_type=ActivationType.INT16)
    max_relative_error = 5e-3  # activations are rounded to integers before they meet integer weights

    isa: ClassVar[str]

    @pytest.fixture(autouse=True)
    def force_level(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if native_isa() is None and self.isa != "numpy":
            pytest.skip("the native kernels are not compiled")
        monkeypatch.setenv(ISA_VARIABLE, self.isa)
        try:
            native_isa()
        except BackendError as error:
            pytest.skip(str(error))


class TestNumpy(CpuContract):
    isa = "numpy"
    max_relative_error = 1e-5  # the same kernels as the reference


class TestNumpyKernels(KernelsContract):
    """Those that stand in where nothing native is compiled."""

    plugin_module = "layerscale_backend_cpu.plugin"
    max_relative_error = 1e-5


class TestBaseline(CpuContract):
    isa = "baseline"


class TestAvx2(CpuContract):
    isa = "avx2"


class TestAvx512(CpuContract):
    isa = "avx512"


class TestByDefault(BackendContract):
    """With the best level, activations of 8 bits, and attention in bfloat16 where the processor has that."""

    plugin_module = "layerscale_backend_cpu.plugin"
    max_relative_error = 0.025
    min_expert_margin = 0.03
