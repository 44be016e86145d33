"""Prometheus metrics: a registry per server, fed by the HTTP edge and by the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from layerscale_core.engine.observer import RequestMetrics, StepMetrics
from layerscale_core.engine.request import Cancelled, Failed, TerminalEvent
from layerscale_core.engine.stats import EngineStats
from layerscale_core.sessions import Sessions
from layerscale_server.response_cache import ResponseCacheStats

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TPOT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The server's metrics; implements ``EngineObserver``. Any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "layerscale_http_requests",
            "HTTP requests answered, by route and status (499: the client left first).",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._finished = Counter(
            "layerscale_generations",
            "Generations that ended, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._flash_hits = Counter(
            "layerscale_flash_hits",
            "Questions answered from the store of a flash query.",
            registry=self.registry,
        )
        self._prefix_misses = Counter(
            "layerscale_prefix_misses",
            "Prompts of which the prefix cache had not every whole page, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._subscribers = Gauge(
            "layerscale_event_subscribers",
            "Listeners to the events of sessions.",
            registry=self.registry,
        )
        self._queue = self._histogram("queue_seconds", "Submission to admission.", _TTFT_BUCKETS)
        self._ttft = self._histogram("time_to_first_token_seconds", "Submission to the first token.", _TTFT_BUCKETS)
        self._tpot = self._histogram(
            "time_per_output_token_seconds",
            "(Last token - first token) / (tokens - 1), one observation a generation.",
            _TPOT_BUCKETS,
        )
        self._step = self._histogram("step_seconds", "One engine step, forward pass included.", _TPOT_BUCKETS)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"layerscale_{name}", documentation, buckets=buckets, registry=self.registry)

    def watch_engine(self, stats: Callable[[], EngineStats], page_size: int) -> None:
        """Add the engine's gauges and counters, read when somebody asks for the metrics."""
        self.registry.register(_EngineCollector(stats, page_size))

    def watch_subscribers(self, count: Callable[[], int]) -> None:
        """Read the number of subscribers here when somebody asks for the metrics."""
        self._subscribers.set_function(count)

    def watch_responses(self, stats: Callable[[], ResponseCacheStats]) -> None:
        """Add the response cache's, likewise."""
        self.registry.register(_ResponsesCollector(stats))

    def watch_sessions(self, sessions: Sessions) -> None:
        """Add the sessions' gauges and counters, likewise."""
        self.registry.register(_SessionsCollector(sessions))

    def count_flash_hit(self) -> None:
        """Count a question that was answered from the store."""
        self._flash_hits.inc()

    def count_request(self, method: str, route: str, status: int) -> None:
        """Count an HTTP request; ``route`` is a template, never a path from outside."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()

    def on_step(self, metrics: StepMetrics) -> None:
        """Observe a step's duration."""
        self._step.observe(metrics.duration_s)

    def on_request_finished(self, metrics: RequestMetrics) -> None:
        """Observe a generation's times, why it ended, and why more of its prompt was not cached."""
        if metrics.is_background:
            return
        self._finished.labels(_reason(metrics.end)).inc()
        if metrics.prefix_miss is not None:
            self._prefix_misses.labels(metrics.prefix_miss.reason.value).inc()
        for histogram, seconds in (
            (self._queue, metrics.queue_s),
            (self._ttft, metrics.ttft_s),
            (self._tpot, metrics.tpot_s),
        ):
            if seconds is not None:
                histogram.observe(seconds)

    def exposition(self) -> bytes:
        """The metrics as text, content type ``CONTENT_TYPE``."""
        return generate_latest(self.registry)


_METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"}


def _reason(end: TerminalEvent) -> str:
    if isinstance(end, Cancelled):
        return "cancelled"
    return "error" if isinstance(end, Failed) else end.reason.value


class _EngineCollector(Collector):
    """The engine's own counts, as metrics."""

    def __init__(self, stats: Callable[[], EngineStats], page_size: int) -> None:
        self._stats = stats
        self._page_size = page_size

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        used_pages = stats.pool.total_pages - stats.pool.free_pages - stats.pool.cached_pages
        gauges = {
            "requests_running": ("Sequences being computed.", stats.num_running),
            "requests_queued": ("Requests that wait.", stats.num_waiting),
            "prompt_tokens_queued": ("Prompt tokens that wait.", stats.num_waiting_prompt_tokens),
            "kv_cells": ("Token slots of the KV cache.", stats.pool.total_pages * self._page_size),
            "kv_cells_used": ("Token slots of pages in use.", used_pages * self._page_size),
            "kv_cells_cached": ("Token slots of pages kept for later.", stats.pool.cached_pages * self._page_size),
            "healthy": ("1 while the engine makes progress.", int(stats.healthy)),
        }
        counters = {
            "prompt_tokens": ("Prompt tokens computed.", stats.num_prompt_tokens),
            "cached_prompt_tokens": ("Prompt tokens found in the prefix cache.", stats.num_cached_tokens),
            "generated_tokens": ("Tokens generated.", stats.num_generated_tokens),
            "drafted_tokens": ("Tokens drafted by prompt lookup.", stats.num_drafted_tokens),
            "accepted_tokens": ("Drafted tokens that came true.", stats.num_accepted_tokens),
            "steps": ("Engine steps that succeeded.", stats.num_steps),
            "failed_steps": ("Engine steps that failed.", stats.num_failed_steps),
        }
        yield from _families(gauges, counters)


class _SessionsCollector(Collector):
    """The sessions' own counts, as metrics."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        totals = self._sessions.totals()
        gauges = {
            "sessions_open": ("Sessions that exist.", len(self._sessions.all())),
            "sessions_max": ("Sessions that memory is reserved for.", self._sessions.limits.max_sessions),
        }
        counters = {
            "stream_entries_enqueued": ("Entries taken into a stream.", totals.num_enqueued),
            "stream_entries_dropped": ("Entries for which a stream had no room.", totals.num_dropped),
            "stream_entries_processed": ("Entries computed into a session.", totals.num_processed),
            "flash_evaluations": ("Answers to flash queries that were computed.", totals.num_evaluations),
        }
        yield from _families(gauges, counters)


class _ResponsesCollector(Collector):
    """The response cache's own counts, as metrics."""

    def __init__(self, stats: Callable[[], ResponseCacheStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        gauges = {"response_cache_bytes": ("Memory that kept answers take.", stats.num_bytes)}
        counters = {
            "response_cache_hits": ("Requests that were given a kept answer.", stats.num_hits),
            "response_cache_misses": ("Deterministic requests that had to be computed.", stats.num_misses),
        }
        yield from _families(gauges, counters)


def _families(gauges: dict[str, tuple[str, int]], counters: dict[str, tuple[str, int]]) -> Iterator[Metric]:
    for name, (documentation, value) in gauges.items():
        yield GaugeMetricFamily(f"layerscale_{name}", documentation, value)
    for name, (documentation, value) in counters.items():
        yield CounterMetricFamily(f"layerscale_{name}", documentation, value)
