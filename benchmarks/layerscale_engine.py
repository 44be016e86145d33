"""LayerScale in this process: the engine with the plugins a server would choose, without HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from llama_cpp_peer import Completion

from layerscale_core.engine import Engine, EngineLimits, Request, SamplingParams
from layerscale_core.forward import make_executor
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import ActivationType, BackendOptions, Executor, KVLayout, num_pages_for
from layerscale_server.bench.recording import record_all


class LayerScaleEngine:
    """An engine whose KV cache holds one context. Use as a context manager.

    Args:
        context_len: of all sequences that run at once together.
        backend: its name; None = the one that scores highest.
        num_threads: host threads that compute; None = the backend's choice.
        activation_type: what the CPU's kernels round activations to; None = the backend's choice.
        watch: puts something before the executor that watches its steps.

    Attributes:
        device: the device in words.
        kv_bytes_per_token: of the KV cache.
    """

    def __init__(
        self,
        model_path: Path,
        context_len: int,
        backend: str | None = None,
        num_threads: int | None = None,
        activation_type: str | None = None,
        *,
        max_running: int = 1,
        watch: Callable[[Executor], Executor] | None = None,
    ) -> None:
        registry = PluginRegistry.discover()
        chosen = registry.choose_backend(backend)
        device = chosen.load(BackendOptions(num_threads, ActivationType(activation_type) if activation_type else None))
        self.device = device.infos[0].description
        self._file = registry.open_model(model_path)
        spec = self._file.spec
        page_size = chosen.backend.capabilities.page_sizes[0]
        attention = spec.layers[0].attention
        layout = KVLayout(
            num_pages=num_pages_for(context_len, page_size),
            page_size=page_size,
            num_layers=len(spec.layers),
            num_kv_heads=attention.num_kv_heads,
            head_dim=attention.head_dim,
        )
        self.kv_bytes_per_token = layout.bytes_per_token
        self._executor = make_executor(device, spec, self._file.weights, layout)
        self._engine = Engine(
            self._executor if watch is None else watch(self._executor),
            self._file.make_tokenizer(),
            registry.make_kv_pool(layout),
            registry.make_scheduler_policy(),
            EngineLimits(max_context_len=context_len, max_running=max_running),
            looks_up_prompts=False,  # no draft: decode steps are what is compared
        )
        self._engine.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.stop()
        self._executor.close()
        self._file.close()

    def complete(self, prompt_ids: Sequence[int], max_tokens: int) -> Completion:
        """Continue greedily by exactly ``max_tokens`` tokens, timed from before ``submit`` to the events."""
        return self.complete_at_once([prompt_ids], max_tokens)[0]

    def complete_at_once(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Completion]:
        """Continue prompts at the same time; otherwise like ``complete``."""
        sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        requests = [Request(f"benchmark-{i}", tuple(prompt_ids), sampling) for i, prompt_ids in enumerate(prompts)]
        started = time.perf_counter()
        return [
            Completion(
                token_ids=recording.token_ids,
                num_prefilled=recording.num_computed,
                prefill_s=recording.first - started,
                decode_s=recording.last - recording.first,
            )
            for recording in record_all(self._engine, requests)
        ]
