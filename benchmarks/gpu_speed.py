"""Decode and prefill of a model with random weights on a GPU, as parts of what the device does at best.

    python benchmarks/gpu_speed.py bf16|int8|int4|transformers --write FILE [--backend cuda|rocm]
    python benchmarks/gpu_speed.py int4 --write FILE --dry-run    (a tiny model on torch's CPU device)

One system and precision a run: ``gpu_run.py`` does all of them, and ``gpu_report.py`` writes what people read. The file
is written after every figure. A figure that fails has its reason in place of a time, and the others follow.

Floors: a decode step reads all weights once and the KV cache of every sequence; prefill computes two operations a
weight and token, and attention.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from gpu_device import copy_rate, describe_machine, matrix_rate, median_seconds
from gpu_figures import ANSWER_TOKENS, DRY, FULL, QUERY_TOKENS, Figure, Plan
from gpu_model import WEIGHTS, ShapedWeights
from torch.autograd import DeviceType
from torch.profiler import profile

from layerscale_core.allocator import CountingAllocator
from layerscale_core.errors import LayerScaleError
from layerscale_core.forward import make_executor
from layerscale_core.gpu.device import TorchDevice
from layerscale_core.gpu.torch_kernels import TorchKernels
from layerscale_core.gpu.warm_up import pages_each, step_batch
from layerscale_core.models.spec import EMBEDDING, OUTPUT
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import BackendOptions, Device, DeviceInfo, KVLayout, StepLimits

LIMITS = StepLimits(max_tokens=4096, max_logits=128, max_context_len=32768)
PROFILED_STEPS = 3
PEER = "transformers"

Rates = dict[str, float]


def figure_of(figure: Figure, measure: Callable[[], float], floor: float | None) -> Figure:
    """The figure with its time, or with why there is none: what fails in one case need not fail in the next."""
    try:
        return figure.timed(measure(), floor)
    except Exception as error:  # whatever it is, it is part of the result
        return figure.failed(f"{type(error).__name__}: {error}")


class Bench:
    """Our executor on a device, with weights of one precision."""

    def __init__(self, device: Device, place: torch.device, plan: Plan, precision: str, rates: Rates) -> None:
        self._place, self._plan, self._precision, self._rates = place, plan, precision, rates
        weights = ShapedWeights(plan.spec, precision)
        needs = device.memory_needs(plan.spec, weights, LIMITS)
        self._read_bytes = needs.weights_bytes - needs.weights[EMBEDDING] * (OUTPUT in needs.weights)
        self._kv = self._cache(device, needs.weights_bytes + needs.workspace_bytes)
        self._executor = make_executor(device, plan.spec, weights, self._kv)

    def figures(self) -> Iterator[Figure]:
        """Everything, the short cases first."""
        plan, name = self._plan, self._precision
        for batch in plan.batches:
            for context in plan.contexts:
                floor = (self._read_bytes + batch * context * self._kv.bytes_per_token) / self._rates["copy"]
                decode = Figure("layerscale", name, "decode", batch, context)
                yield figure_of(decode, lambda b=batch, c=context: self._seconds(b, c, 1), floor)
                new = plan.prefill_len(batch, context)
                floor = plan.prefill_operations(batch, context) / self._rates["matrix"]
                prefill = Figure("layerscale", name, f"prefill of {new:,} tokens each", batch, context)
                yield figure_of(prefill, lambda b=batch, c=context, n=new: self._seconds(b, c - n, n), floor)
        asked = f"query of {QUERY_TOKENS} tokens, {ANSWER_TOKENS} answered"
        query = Figure("layerscale", name, asked, 1, plan.contexts[-1])
        yield figure_of(query, self._query_seconds, None)

    def profile(self) -> dict[str, Any]:
        """Where the time of a decode step over the longest context goes, kernel by kernel."""
        batch = step_batch(self._kv, 1, self._plan.contexts[-1], 1)
        seconds = median_seconds(self._place, lambda: self._executor.step(batch), self._plan.repetitions)
        with profile() as profiler:
            for _ in range(PROFILED_STEPS):
                self._executor.step(batch)
        averages, on_host = profiler.key_averages(), self._place.type == "cpu"
        order = "self_cpu_time_total" if on_host else "self_device_time_total"
        # On a device a row of an operation repeats the time of its kernels, which have rows of their own.
        rows = [each for each in averages if (each.device_type == DeviceType.CPU) == on_host]
        kernels_ms = sum(getattr(each, order) for each in rows) / PROFILED_STEPS / 1e3
        table = averages.table(sort_by=order, row_limit=12, max_name_column_width=40)
        return {"step_ms": 1e3 * seconds, "kernels_ms": kernels_ms, "table": str(table)}

    def close(self) -> None:
        """Free the device's memory."""
        self._executor.close()

    def _cache(self, device: Device, taken_bytes: int) -> KVLayout:
        """Room for the largest case, or for what fits."""
        plan, page = self._plan, self._plan.layout(1)
        wanted = max(plan.batches) * pages_each(page, plan.contexts[-1] + QUERY_TOKENS + ANSWER_TOKENS)
        room = int(0.9 * (device.allocator.stats().free_bytes - taken_bytes)) // page.total_bytes
        if room < pages_each(page, plan.contexts[0] + 1):
            sys.exit(f"gpu_speed: {self._precision} weights leave no room for {plan.contexts[0]} tokens")
        return plan.layout(min(wanted, room))

    def _seconds(self, num_seqs: int, cached: int, new: int) -> float:
        self._check_room(num_seqs * pages_each(self._kv, cached + new))
        batch = step_batch(self._kv, num_seqs, cached, new)
        return median_seconds(self._place, lambda: self._executor.step(batch), self._plan.repetitions)

    def _query_seconds(self) -> float:
        context = self._plan.contexts[-1]
        lengths = [QUERY_TOKENS, *[1] * (ANSWER_TOKENS - 1)]
        starts = [context, *range(context + QUERY_TOKENS, context + QUERY_TOKENS + ANSWER_TOKENS - 1)]
        self._check_room(pages_each(self._kv, starts[-1] + 1))
        batches = [step_batch(self._kv, 1, start, length) for start, length in zip(starts, lengths, strict=True)]
        run = [lambda each=each: self._executor.step(each) for each in batches]
        return median_seconds(self._place, lambda: [step() for step in run], self._plan.repetitions)

    def _check_room(self, num_pages: int) -> None:
        if num_pages > self._kv.num_pages:
            raise LayerScaleError(f"does not fit: {num_pages:,} pages of {self._kv.num_pages:,}")


def peer_figures(place: torch.device, plan: Plan, rates: Rates) -> Iterator[Figure]:
    """The same of ``transformers`` in bfloat16."""
    from gpu_peer import TransformersPeer  # noqa: PLC0415 (seconds to import, and not needed for ours)

    peer = TransformersPeer(plan.spec, place)
    weight_bytes = 2 * (plan.spec.num_parameters - plan.spec.vocab_size * plan.spec.hidden_size)
    for batch in plan.batches:
        for context in plan.contexts:
            floor = (weight_bytes + batch * context * plan.layout(1).bytes_per_token) / rates["copy"]
            decode = Figure(PEER, "bf16", "decode", batch, context)
            yield figure_of(decode, lambda b=batch, c=context: peer.decode_seconds(b, c, plan.repetitions), floor)
            new = plan.prefill_len(batch, context)
            floor = plan.prefill_operations(batch, context) / rates["matrix"]
            prefill = Figure(PEER, "bf16", f"prefill of {new:,} tokens each", batch, context)
            yield figure_of(
                prefill, lambda b=batch, c=context, n=new: peer.prefill_seconds(b, c - n, n, plan.repetitions), floor
            )


def open_gpu(name: str | None) -> Device:
    """The GPU backend of that name, or the one that can serve here."""
    chosen = PluginRegistry.discover().choose_backend(name)
    device = chosen.load(BackendOptions())
    if not device.infos[0].is_accelerator:
        reasons = "; ".join(f"{other.name}: {other.reason}" for other in chosen.rejected)
        sys.exit(f"gpu_speed: there is no GPU: {reasons}")
    return device


def open_dry() -> Device:
    """Torch's CPU device under a GPU's name."""
    allocator = CountingAllocator(1 << 28, "the dry run's memory")
    info = DeviceInfo("dry-run", "torch on the CPU", 1 << 28, 1 << 28, is_accelerator=True)
    return TorchDevice(lambda: info, allocator, lambda: TorchKernels(torch.device("cpu"), allocator))


def main() -> None:
    """Measure one system and precision, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=[*WEIGHTS, PEER])
    parser.add_argument("--write", type=Path, required=True)
    parser.add_argument("--backend", help="cuda or rocm; without it, the one that can serve here")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on torch's CPU device")
    options = parser.parse_args()
    plan, place = (DRY, torch.device("cpu")) if options.dry_run else (FULL, torch.device("cuda", 0))
    device = open_dry() if options.dry_run else open_gpu(options.backend)
    rates = {"copy": copy_rate(place, plan.copied_bytes), "matrix": matrix_rate(place, plan.matrix_size)}
    content = {**describe_machine(device), "rates_per_s": rates, "figures": [], "profile": None}

    def keep(figures: Iterator[Figure]) -> None:
        for figure in figures:
            print(figure, flush=True)
            content["figures"].append(asdict(figure))
            options.write.write_text(json.dumps(content, indent=1) + "\n")

    if options.system == PEER:
        keep(peer_figures(place, plan, rates))
    else:
        bench = Bench(device, place, plan, options.system, rates)
        keep(bench.figures())
        content["profile"] = bench.profile()
        bench.close()
    content["is_complete"] = True
    options.write.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
