"""The engine: requests in, events out, one thread in between."""

from layerscale_core.engine.detokenizer import IncrementalDetokenizer
from layerscale_core.engine.engine import Engine
from layerscale_core.engine.kv_pool import PagedKVPool
from layerscale_core.engine.limits import EngineLimits
from layerscale_core.engine.observer import EngineObserver, NullObserver, RequestMetrics, StepMetrics
from layerscale_core.engine.request import (
    Cancelled,
    Event,
    EventSink,
    Failed,
    Finished,
    FinishReason,
    PromptScored,
    Request,
    TerminalEvent,
    TokenLogprob,
    TokensGenerated,
    Usage,
)
from layerscale_core.engine.sampling_params import SamplingParams
from layerscale_core.engine.scheduler import FairPolicy
from layerscale_core.engine.stats import EngineStats
from layerscale_core.engine.validation import check_sampling

__all__ = [
    "Cancelled",
    "Engine",
    "EngineLimits",
    "EngineObserver",
    "EngineStats",
    "Event",
    "EventSink",
    "Failed",
    "FairPolicy",
    "FinishReason",
    "Finished",
    "IncrementalDetokenizer",
    "NullObserver",
    "PagedKVPool",
    "PromptScored",
    "Request",
    "RequestMetrics",
    "SamplingParams",
    "StepMetrics",
    "TerminalEvent",
    "TokenLogprob",
    "TokensGenerated",
    "Usage",
    "check_sampling",
]
