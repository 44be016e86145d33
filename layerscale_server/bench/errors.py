"""What ends a benchmark."""

from __future__ import annotations

from layerscale_core.errors import LayerScaleError


class BenchmarkError(LayerScaleError):
    """A benchmark cannot go on."""
