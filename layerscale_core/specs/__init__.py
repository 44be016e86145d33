"""The specs: hooks that assemble, protocols that serve.

All that a plugin implements is here. What it may use of core besides: the errors and model descriptions that the specs
speak of, ``allocator``, ``elementary``, ``host`` and ``licensing``, the ``reference`` kernels, and in its tests the
``conformance`` kit.
"""

from layerscale_core.specs.backend import (
    ActivationType,
    Backend,
    BackendOptions,
    Capabilities,
    Device,
    DeviceInfo,
    LayersHost,
    Probe,
)
from layerscale_core.specs.executor import (
    DeviceLogits,
    Executor,
    HostedLayers,
    KVLayout,
    KVType,
    PagedLayers,
    StepBatch,
    StepLogits,
)
from layerscale_core.specs.hooks import ENTRY_POINT_GROUP, PROJECT_NAME, hookimpl, hookspec
from layerscale_core.specs.kernels import Array, AttentionWeights, ExpertWeights, Kernels, MlpWeights
from layerscale_core.specs.kv_pool import (
    KVPool,
    MissReason,
    PageCopy,
    PageRange,
    PageTable,
    PoolStats,
    PrefixMiss,
    Reservation,
    num_pages_for,
)
from layerscale_core.specs.licensing import FREE_LICENSE, FREE_TIER, PRO_TIER, License, LicenseVerifier, Tier
from layerscale_core.specs.memory import Allocator, MemoryNeeds, MemoryStats, StepLimits
from layerscale_core.specs.model_format import ModelFile, ModelFormat, WeightSource
from layerscale_core.specs.offload import OffloadPlan, OffloadPlanner
from layerscale_core.specs.scheduler import (
    Priority,
    RunningSequence,
    ScheduledTokens,
    SchedulerPolicy,
    TokenBudget,
)
from layerscale_core.specs.stream_type import StreamType
from layerscale_core.specs.tokenizer import Tokenizer

__all__ = [
    "ENTRY_POINT_GROUP",
    "FREE_LICENSE",
    "FREE_TIER",
    "PROJECT_NAME",
    "PRO_TIER",
    "ActivationType",
    "Allocator",
    "Array",
    "AttentionWeights",
    "Backend",
    "BackendOptions",
    "Capabilities",
    "Device",
    "DeviceInfo",
    "DeviceLogits",
    "Executor",
    "ExpertWeights",
    "HostedLayers",
    "KVLayout",
    "KVPool",
    "KVType",
    "Kernels",
    "LayersHost",
    "License",
    "LicenseVerifier",
    "MemoryNeeds",
    "MemoryStats",
    "MissReason",
    "MlpWeights",
    "ModelFile",
    "ModelFormat",
    "OffloadPlan",
    "OffloadPlanner",
    "PageCopy",
    "PageRange",
    "PageTable",
    "PagedLayers",
    "PoolStats",
    "PrefixMiss",
    "Priority",
    "Probe",
    "Reservation",
    "RunningSequence",
    "ScheduledTokens",
    "SchedulerPolicy",
    "StepBatch",
    "StepLimits",
    "StepLogits",
    "StreamType",
    "Tier",
    "TokenBudget",
    "Tokenizer",
    "WeightSource",
    "hookimpl",
    "hookspec",
    "num_pages_for",
]
