"""The conformance kit: each promise of the specs as a test, for plugin authors to run against their own objects.

Subclass a contract in your tests and say what it is to test; pytest does the rest::

    from layerscale_core.conformance import BackendContract

    class TestMyBackend(BackendContract):
        plugin_module = "my_backend.plugin"

Needs pytest and hypothesis, which core itself does not.
"""

import pytest

# Before they are imported, so that a failing assertion of a contract shows its values.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in ("backend", "executors", "numerics", "paging")))

from layerscale_core.conformance.backend import BackendContract  # noqa: E402
from layerscale_core.conformance.random_model import LAYOUTS, RandomWeights, tiny_spec  # noqa: E402
from layerscale_core.conformance.step_batches import PageBook, PagedSequence, Span  # noqa: E402

__all__ = [
    "LAYOUTS",
    "BackendContract",
    "PageBook",
    "PagedSequence",
    "RandomWeights",
    "Span",
    "tiny_spec",
]
