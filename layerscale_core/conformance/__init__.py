"""The conformance kit: each promise of the specs as a test, for plugin authors to run against their own objects.

Subclass a contract in your tests and supply its fixtures; pytest does the rest::

    from layerscale_core.conformance import BackendContract

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def backend(self):
            return MyBackend()

Needs pytest and hypothesis, which core itself does not.
"""

from layerscale_core.conformance.random_model import LAYOUTS, RandomWeights, tiny_spec
from layerscale_core.conformance.step_batches import PageBook, Span

__all__ = [
    "LAYOUTS",
    "PageBook",
    "RandomWeights",
    "Span",
    "tiny_spec",
]
