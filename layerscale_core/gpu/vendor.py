"""What a vendor supplies for its GPUs: data, and how its driver is found. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from layerscale_core.errors import BackendError
from layerscale_core.gpu.installed_torch import find_torch
from layerscale_core.gpu.tuning import Tuning

GRAPH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
"""Sequences in the steps that are recorded as graphs: every decode step is padded to the next of them."""


@dataclass(frozen=True, slots=True)
class Vendor:
    """One vendor's GPUs, which torch all calls ``cuda`` devices.

    Attributes:
        name: of the backend, and of the extra that installs what it needs.
        label: for people.
        platform: of the torch builds that drive them, as ``torch.version`` names it: ``cuda`` or ``hip``.
        find_driver: looks for a driver and devices without touching them; returns what was found, in words.
        tunings: by architecture, as the compiler names it (``sm_90``, ``gfx942``); there are no others it runs on.
        graph_buckets: see ``GRAPH_BUCKETS``; empty: no step is recorded.
    """

    name: str
    label: str
    platform: str
    find_driver: Callable[[], str]
    tunings: Mapping[str, Tuning]
    graph_buckets: tuple[int, ...] = GRAPH_BUCKETS

    def check(self) -> str:
        """Look for all that serving takes, without importing torch; returns what was found, in words.

        Raises:
            BackendError: with what is missing.
        """
        found = self.find_driver()
        torch = find_torch(self.name)
        version = torch.platforms.get(self.platform)
        if version is None:
            other = " and ".join(torch.platforms) or "CPU"
            raise BackendError(
                f"torch {torch.version} is a {other} build and drives no {self.label} GPU; "
                f"see https://pytorch.org/get-started/locally for one that does"
            )
        return f"{found}, torch {torch.version} for {self.platform} {version}"

    def tuning(self, architecture: str, device_name: str) -> Tuning:
        """What the kernels are tuned by.

        Raises:
            BackendError: they are not compiled for this architecture.
        """
        if architecture not in self.tunings:
            raise BackendError(
                f"{device_name} is {architecture}; the {self.name} backend has kernels for {', '.join(self.tunings)}"
            )
        return self.tunings[architecture]
