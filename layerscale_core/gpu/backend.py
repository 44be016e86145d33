"""The backend of any vendor's GPUs. Imports no torch before it is loaded."""

from __future__ import annotations

from layerscale_core.errors import BackendError
from layerscale_core.gpu.vendor import Vendor
from layerscale_core.specs.backend import BackendOptions, Capabilities, Device, Probe
from layerscale_core.specs.executor import KVType

PROBE_SCORE = 100
"""Above the CPU."""


class GpuBackend:
    """``layerscale_core.specs.Backend`` for a vendor's GPUs."""

    capabilities = Capabilities(page_sizes=(16, 32), kv_types=tuple(KVType))

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor

    @property
    def name(self) -> str:
        """The vendor's."""
        return self._vendor.name

    def probe(self) -> Probe:
        """Whether there are a driver, a device and a torch that drives it; no device is touched."""
        try:
            return Probe(PROBE_SCORE, self._vendor.check())
        except BackendError as error:
            return Probe(0, str(error))

    def load(self, options: BackendOptions) -> Device:  # noqa: ARG002 (a GPU's threads are its own)
        """Import torch, and take the first device that the process may see."""
        self._vendor.check()
        from layerscale_core.gpu.vendor_device import open_device  # noqa: PLC0415

        return open_device(self._vendor)
