"""Decode and prefill of both engines, token ids in and token ids out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from figures import Row
from layerscale_engine import LayerScaleEngine
from llama_cpp_peer import Completion, LlamaCppPeer, PeerOptions
from workloads import CONTEXT_LEN, FIGURES, WORKLOADS, Figure, Prompts, Workload

from layerscale_core.host import inspect_host
from layerscale_server.bench.statistics import Spread

SETTLE_S = 0.2
"""Pause before each run, after which the other engine's threads have gone to sleep."""

Setups = Mapping[Figure, PeerOptions]


class Completer(Protocol):
    """Either engine."""

    def complete_at_once(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Completion]:
        """Continue each greedily by exactly ``max_tokens`` tokens."""
        ...


def any_setups(model_path: Path) -> Setups:
    """A set-up for each figure that works, and no more than that."""
    setups = {options.num_slots: options for options in _candidates(model_path)}
    return {figure: setups[figure.workload.num_requests] for figure in FIGURES}


def find_best_setups(model_path: Path, prompts: Prompts) -> Setups:
    """Each figure's best among the peer's thread counts and attention kernels, the better of two runs each."""
    measured: dict[Figure, dict[PeerOptions, float]] = {figure: {} for figure in FIGURES}
    for options in _candidates(model_path):
        workloads = [each for each in WORKLOADS if each.num_requests == options.num_slots]
        with LlamaCppPeer(options) as peer:
            answers = [{each: _complete(peer, each, prompts) for each in workloads} for _ in range(2)]
        for figure in FIGURES:
            if figure.workload in workloads:
                measured[figure][options] = max(figure.read(answer[figure.workload]) for answer in answers)
    return {figure: max(rates, key=rates.__getitem__) for figure, rates in measured.items()}


def _candidates(model_path: Path) -> Iterator[PeerOptions]:
    """All cores and half of them, with flash attention and without, with as many slots as each workload has requests.

    The slots share one context, in equal parts; a cache that they share altogether (``kv_unified``) is slower.
    """
    num_cpus = inspect_host().num_usable_cpus
    for num_slots in sorted({each.num_requests for each in WORKLOADS}):
        for num_threads in sorted({max(1, num_cpus // 2), num_cpus}, reverse=True):
            for flash_attention in ("disabled", "enabled"):
                yield PeerOptions(model_path, CONTEXT_LEN, num_threads, flash_attention, num_slots=num_slots)


def compare_engines(ours: LayerScaleEngine, setups: Setups, prompts: Prompts, repetitions: int) -> Iterator[Row]:
    """Run each workload on both engines in turn; yields the figures."""
    for workload in WORKLOADS:
        figures = [figure for figure in FIGURES if figure.workload == workload]
        with contextlib.ExitStack() as stack:
            engines: dict[PeerOptions | None, Completer] = {None: ours}
            for options in {setups[figure] for figure in figures}:
                engines[options] = stack.enter_context(LlamaCppPeer(options))
            answers = [
                {options: _complete(engine, workload, prompts) for options, engine in engines.items()}
                for _ in range(repetitions)
            ]
        for figure in figures:
            yield Row(
                name=figure.name,
                unit="tokens/s",
                higher_is_better=True,
                ours=Spread.of([figure.read(answer[None]) for answer in answers]),
                peer=Spread.of([figure.read(answer[setups[figure]]) for answer in answers]),
                peer_setup=str(setups[figure]),
            )


def _complete(engine: Completer, workload: Workload, prompts: Prompts) -> list[Completion]:
    time.sleep(SETTLE_S)
    completions = engine.complete_at_once(prompts.of(workload), workload.max_tokens)
    for completion in completions:
        assert completion.num_prefilled == workload.prompt_len, "a prompt cache had seen the prompt"
        assert len(completion.token_ids) == workload.max_tokens
    return completions
