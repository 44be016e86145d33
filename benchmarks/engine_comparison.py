"""Decode and prefill of both engines, token ids in and token ids out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
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

    def complete(self, prompt_ids: list[int], max_tokens: int) -> Completion:
        """Continue greedily by exactly ``max_tokens`` tokens."""
        ...


def find_best_setups(model_path: Path, prompts: Prompts) -> Setups:
    """Each figure's best among the peer's thread counts and attention kernels, the better of two runs each."""
    num_cpus = inspect_host().num_usable_cpus
    measured: dict[PeerOptions, dict[Figure, float]] = {}
    for num_threads in sorted({max(1, num_cpus // 2), num_cpus}):
        for flash_attention in ("enabled", "disabled"):
            options = PeerOptions(model_path, CONTEXT_LEN, num_threads, flash_attention)
            with LlamaCppPeer(options) as peer:
                answers = [{each: _complete(peer, each, prompts) for each in WORKLOADS} for _ in range(2)]
            measured[options] = {
                figure: max(figure.read(answer[figure.workload]) for answer in answers) for figure in FIGURES
            }
    return {figure: max(measured, key=lambda options: measured[options][figure]) for figure in FIGURES}


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


def _complete(engine: Completer, workload: Workload, prompts: Prompts) -> Completion:
    time.sleep(SETTLE_S)
    completion = engine.complete(prompts.next(workload.prompt_len), workload.max_tokens)
    assert completion.num_prefilled == workload.prompt_len, "a prompt cache had seen the prompt"
    assert len(completion.token_ids) == workload.max_tokens
    return completion
