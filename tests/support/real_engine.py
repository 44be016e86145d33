"""An engine with a real model, in this process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from layerscale_core.constraints import Constraint
from layerscale_core.engine import (
    Engine,
    EngineLimits,
    Event,
    FairPolicy,
    Finished,
    PagedKVPool,
    Request,
    SamplingParams,
    TokensGenerated,
)
from layerscale_core.forward import make_executor
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import BackendOptions, KVLayout, Tokenizer

PAGE_SIZE = 16


@dataclass
class RealEngine:
    """Runs requests to their ends; the test is the engine thread."""

    engine: Engine
    tokenizer: Tokenizer

    def run(self, prompts: list[str], constraints: list[Constraint | None], **sampling: object) -> list[list[Event]]:
        """The events of several requests in one batch."""
        events: list[list[Event]] = [[] for _ in prompts]
        for index, (prompt, constraint) in enumerate(zip(prompts, constraints, strict=True)):
            params = SamplingParams(**sampling)  # type: ignore[arg-type]
            ids = tuple(self.tokenizer.encode(prompt))
            self.engine.submit(Request(f"r{index}", ids, params, constraint=constraint), events[index].append)
        while self.engine.step():
            pass
        return events


def text_and_end(events: list[Event]) -> tuple[str, Finished]:
    """The whole answer and how it ended; an answer that failed is an assertion error."""
    *pieces, end = events
    assert isinstance(end, Finished), end
    return "".join(piece.text for piece in pieces if isinstance(piece, TokensGenerated)) + end.text, end


@contextlib.contextmanager
def real_engine(
    path: Path,
    max_running: int = 16,
    context_len: int = 512,
    *,
    looks_up_prompts: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[RealEngine]:
    """An engine on the backend that a server would choose."""
    registry = PluginRegistry.discover()
    file = registry.open_model(path)
    attention = file.spec.layers[0].attention
    num_pages = max_running * context_len // PAGE_SIZE
    layout = KVLayout(num_pages, PAGE_SIZE, len(file.spec.layers), attention.num_kv_heads, attention.head_dim)
    device = registry.choose_backend(None).load(BackendOptions(None))
    executor = make_executor(device, file.spec, file.weights, layout)
    tokenizer = file.make_tokenizer()
    limits, pool = EngineLimits(context_len, max_running), PagedKVPool(num_pages, PAGE_SIZE)
    engine = Engine(executor, tokenizer, pool, FairPolicy(), limits, looks_up_prompts=looks_up_prompts, clock=clock)
    try:
        yield RealEngine(engine, tokenizer)
    finally:
        executor.close()
        file.close()
