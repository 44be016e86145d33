"""A model in this process, on the backend that a server would choose: what engines of a benchmark are made on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from layerscale_core.engine import Engine, EngineLimits, PagedKVPool
from layerscale_core.forward import make_executor
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import BackendOptions, Executor, KVLayout, SchedulerPolicy, Tokenizer

PAGE_SIZE = 16


@dataclass(frozen=True)
class LoadedModel:
    """One model and its KV cache, for ``max_running`` sequences of ``context_len`` tokens at a time."""

    executor: Executor
    tokenizer: Tokenizer
    context_len: int
    max_running: int

    def make_engine(self, policy: SchedulerPolicy, *, looks_up_prompts: bool) -> Engine:
        """An engine that computes every prompt; of several on one model only one may be busy."""
        return Engine(
            self.executor,
            self.tokenizer,
            PagedKVPool(self.max_running * self.context_len // PAGE_SIZE, PAGE_SIZE),
            policy,
            EngineLimits(self.context_len, max_running=self.max_running),
            shares_prefixes=False,
            looks_up_prompts=looks_up_prompts,
        )


@contextlib.contextmanager
def load_model(
    path: Path, context_len: int, *, max_running: int = 1, num_threads: int | None = None
) -> Iterator[LoadedModel]:
    """Load a model; it is closed at the end. Without ``num_threads`` the backend decides."""
    registry = PluginRegistry.discover()
    file = registry.open_model(path)
    attention, num_layers = file.spec.layers[0].attention, len(file.spec.layers)
    num_pages = max_running * context_len // PAGE_SIZE
    layout = KVLayout(num_pages, PAGE_SIZE, num_layers, attention.num_kv_heads, attention.head_dim)
    device = registry.choose_backend(None).load(BackendOptions(num_threads))
    executor = make_executor(device, file.spec, file.weights, layout)
    try:
        yield LoadedModel(executor, file.make_tokenizer(), context_len, max_running)
    finally:
        executor.close()
        file.close()
