"""The device that a backend's contracts run on."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import ClassVar

import pytest

from layerscale_core.specs import Backend, BackendOptions, Device


class DeviceUnderTest:
    """What the contracts of a backend are run on.

    Attributes:
        plugin_module: the plugin's module; its first backend is tested, unless ``backend`` is overridden.
        options: what the backend is loaded with.
    """

    plugin_module: ClassVar[str]
    options: ClassVar[BackendOptions] = BackendOptions(num_threads=2)

    @pytest.fixture
    def backend(self) -> Backend:
        """The backend under test."""
        backends: tuple[Backend, ...] = tuple(importlib.import_module(self.plugin_module).layerscale_backends())
        return backends[0]

    @pytest.fixture
    def device(self, backend: Backend) -> Iterator[Device]:
        """The loaded device; every test must leave its memory as it was."""
        device = backend.load(self.options)
        used_before = device.allocator.stats().used_bytes
        yield device
        assert device.allocator.stats().used_bytes == used_before, "memory was not given back"
