"""An engine on the fake executor, small enough that every page boundary is met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from layerscale_core.engine import (
    Engine,
    EngineLimits,
    EngineObserver,
    FairPolicy,
    PagedKVPool,
    Request,
    RequestMetrics,
    SamplingParams,
    StepMetrics,
)
from layerscale_core.specs import Priority, SchedulerPolicy
from tests.support.fake_executor import PRINTABLE, FakeExecutor
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.recording_sink import RecordingSink

PAGE_SIZE = 4


class RecordingObserver:
    """An engine observer that remembers what it saw."""

    def __init__(self) -> None:
        self.steps: list[StepMetrics] = []
        self.requests: list[RequestMetrics] = []

    def on_step(self, metrics: StepMetrics) -> None:
        self.steps.append(metrics)

    def on_request_finished(self, metrics: RequestMetrics) -> None:
        self.requests.append(metrics)


@dataclass
class VirtualClock:
    """Seconds that pass when a test says so."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class EngineHarness:
    """An engine with what it was made of. Without ``engine.start`` the test is the engine thread."""

    engine: Engine
    executor: FakeExecutor
    pool: PagedKVPool
    clock: VirtualClock
    sinks: dict[str, RecordingSink] = field(default_factory=dict)

    def submit(
        self,
        request_id: str,
        prompt: Sequence[int] | bytes,
        max_tokens: int = 5,
        *,
        priority: Priority = Priority.INTERACTIVE,
        cache_key: str = "",
        **sampling: object,
    ) -> RecordingSink:
        """Submit a request with a new sink."""
        sink = RecordingSink()
        params = SamplingParams(max_tokens, **sampling)  # type: ignore[arg-type]
        self.engine.submit(Request(request_id, tuple(prompt), params, priority, cache_key), sink)
        self.sinks[request_id] = sink
        return sink

    def run(self, max_steps: int = 10_000) -> int:
        """Step until idle, checking the pool each time; returns the number of steps."""
        for num_steps in range(max_steps):
            progressed = self.engine.step()
            self.pool.check_integrity()
            if not progressed:
                return num_steps
        raise AssertionError("the engine does not come to rest")

    def check_at_rest(self) -> None:
        """Everything ended once, everything was given back, and every batch was in order."""
        self.pool.check_integrity()
        stats = self.pool.stats()
        assert (stats.free_pages + stats.cached_pages, stats.reserved_pages) == (stats.total_pages, 0)
        self.pool.check_prefixes()
        assert not self.engine.stats().has_work
        assert all(sink.end for sink in self.sinks.values())
        assert not self.executor.violations


def make_harness(
    *,
    num_pages: int = 64,
    max_context_len: int = 64,
    max_running: int = 8,
    max_tokens_per_step: int = 16,
    max_logits_per_step: int = 12,
    max_waiting: int = 1024,
    max_waiting_prompt_tokens: int | None = None,
    alphabet: Sequence[int] = PRINTABLE,
    policy: SchedulerPolicy | None = None,
    observer: EngineObserver | None = None,
    clock: Callable[[], float] | None = None,
    shares_prefixes: bool = True,
    looks_up_prompts: bool = True,
) -> EngineHarness:
    """Build an engine that has not been started."""
    executor = FakeExecutor(num_pages, PAGE_SIZE, alphabet=alphabet)
    pool = PagedKVPool(num_pages, PAGE_SIZE)
    virtual = VirtualClock()
    limits = EngineLimits(
        max_context_len,
        max_running,
        max_waiting,
        max_waiting_prompt_tokens,
        max_tokens_per_step=max_tokens_per_step,
        max_logits_per_step=max_logits_per_step,
    )
    engine = Engine(
        executor,
        ByteTokenizer(),
        pool,
        policy or FairPolicy(),
        limits,
        shares_prefixes=shares_prefixes,
        looks_up_prompts=looks_up_prompts,
        observer=observer,
        clock=clock or virtual,
    )
    return EngineHarness(engine, executor, pool, virtual)
