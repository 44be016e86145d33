"""A model in this process, on the backend that a server would choose: what engines of a benchmark are made on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from layerscale_core.engine import Engine, EngineLimits, FairPolicy, PagedKVPool
from layerscale_core.forward import make_executor
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import BackendOptions, Executor, KVLayout, Tokenizer

PAGE_SIZE = 16


@dataclass(frozen=True)
class LoadedModel:
    """One model and its KV cache, for one sequence of ``context_len`` tokens at a time."""

    executor: Executor
    tokenizer: Tokenizer
    context_len: int

    def make_engine(self, *, looks_up_prompts: bool) -> Engine:
        """An engine that computes every prompt; of several on one model only one may be busy."""
        return Engine(
            self.executor,
            self.tokenizer,
            PagedKVPool(self.context_len // PAGE_SIZE, PAGE_SIZE),
            FairPolicy(),
            EngineLimits(self.context_len, max_running=1),
            shares_prefixes=False,
            looks_up_prompts=looks_up_prompts,
        )


@contextlib.contextmanager
def load_model(path: Path, context_len: int) -> Iterator[LoadedModel]:
    """Load a model; it is closed at the end."""
    registry = PluginRegistry.discover()
    file = registry.open_model(path)
    attention, num_layers = file.spec.layers[0].attention, len(file.spec.layers)
    layout = KVLayout(context_len // PAGE_SIZE, PAGE_SIZE, num_layers, attention.num_kv_heads, attention.head_dim)
    device = registry.choose_backend(None).load(BackendOptions(None))
    executor = make_executor(device, file.spec, file.weights, layout)
    try:
        yield LoadedModel(executor, file.make_tokenizer(), context_len)
    finally:
        executor.close()
        file.close()
