"""The conformance kit: each promise of the specs as a test, for plugin authors to run against their own objects.

Subclass a contract in your tests and say what it is to test; pytest does the rest::

    from layerscale_core.conformance import BackendContract

    class TestMyBackend(BackendContract):
        plugin_module = "my_backend.plugin"

Needs pytest, which core itself does not.
"""

import pytest

_CONTRACTS = (
    "backend",
    "batching",
    "device",
    "executor_under_test",
    "executors",
    "family_models",
    "kernel_arithmetic",
    "kernel_cache",
    "kernels",
    "numerics",
    "paging",
    "kv_pool",
    "kv_pool_reservations",
    "kv_pool_sharing",
    "kv_pool_under_test",
    "model_format",
    "scheduler_policy",
    "side_by_side",
    "stream_type",
)

# Before they are imported, so that a failing assertion of a contract shows its values.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _CONTRACTS))

from layerscale_core.conformance.backend import BackendContract  # noqa: E402
from layerscale_core.conformance.kernels import KernelsContract  # noqa: E402
from layerscale_core.conformance.kv_pool import KVPoolContract  # noqa: E402
from layerscale_core.conformance.model_format import ModelFileContract, ModelFormatContract  # noqa: E402
from layerscale_core.conformance.random_model import LAYOUTS, OPERATIONS, RandomWeights, tiny_spec  # noqa: E402
from layerscale_core.conformance.scheduler_policy import SchedulerPolicyContract  # noqa: E402
from layerscale_core.conformance.step_batches import PageBook, PagedSequence, Span  # noqa: E402
from layerscale_core.conformance.stream_type import StreamTypeContract  # noqa: E402

__all__ = [
    "LAYOUTS",
    "OPERATIONS",
    "BackendContract",
    "KVPoolContract",
    "KernelsContract",
    "ModelFileContract",
    "ModelFormatContract",
    "PageBook",
    "PagedSequence",
    "RandomWeights",
    "SchedulerPolicyContract",
    "Span",
    "StreamTypeContract",
    "tiny_spec",
]
