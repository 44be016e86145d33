"""Decode and prefill of a model with random weights on a GPU, as fractions of what the device does at best.

    python benchmarks/gpu_speed.py [--backend cuda|rocm] [--results benchmarks/results]
    python benchmarks/gpu_speed.py --dry-run --results /tmp/results    (a tiny model on torch's CPU device)

Beside them ``transformers`` on the same device in the same run, and a profile of a decode step. Floors: a decode step
reads all weights once and the KV cache of every sequence; prefill computes two operations a weight and token.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from gpu_device import copy_rate, matrix_rate, median_seconds
from gpu_model import EIGHT_B, TINY, WEIGHTS, ShapedWeights
from gpu_peer import TransformersPeer
from torch.profiler import profile

from layerscale_core.allocator import CountingAllocator
from layerscale_core.forward import make_executor
from layerscale_core.gpu.device import TorchDevice
from layerscale_core.gpu.torch_kernels import TorchKernels
from layerscale_core.gpu.warm_up import pages_each, step_batch
from layerscale_core.models import ModelSpec
from layerscale_core.models.spec import EMBEDDING, OUTPUT
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import BackendOptions, Device, DeviceInfo, Executor, KVLayout, StepLimits

PAGE_SIZE = 16
QUERY_TOKENS, ANSWER_TOKENS = 20, 4
LIMITS = StepLimits(max_tokens=4096, max_logits=128, max_context_len=32768)
TARGETS = {"bf16": 0.80, "int8": 0.65, "int4": 0.50}
"""Decode at batch 1, as a part of the copy rate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured on what."""

    spec: ModelSpec
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    prefills: tuple[int, ...]
    copied_bytes: int
    matrix_size: int
    repetitions: int


FULL = Plan(EIGHT_B, (1, 8, 32), (512, 8192, 19000), (512, 4096), 1 << 30, 8192, 30)
DRY = Plan(TINY, (1, 3), (17, 40), (24,), 1 << 20, 64, 2)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement; what did not fit has no time.

    Attributes:
        part: of the floor's rate that was reached: copy for decode, matrix product for prefill.
    """

    system: str
    weights: str
    work: str
    batch: int
    context: int
    milliseconds: float | None = None
    part: float | None = None

    def timed(self, seconds: float | None, floor: float | None = None) -> Figure:
        """With what was measured, beside the seconds that the device needs at best."""
        if seconds is None:
            return self
        return replace(self, milliseconds=1e3 * seconds, part=None if floor is None else floor / seconds)


class Bench:
    """Our executor on a device, a precision of the weights at a time."""

    def __init__(self, device: Device, place: torch.device, plan: Plan) -> None:
        self._device, self._place, self._plan = device, place, plan
        self.copy_rate = copy_rate(place, plan.copied_bytes)
        self.matrix_rate = matrix_rate(place, plan.matrix_size)

    def figures(self, precision: str) -> Iterator[Figure]:
        """Everything at one precision, and a profile at the end."""
        plan, spec = self._plan, self._plan.spec
        weights = ShapedWeights(spec, precision)
        needs = self._device.memory_needs(spec, weights, LIMITS)
        read_bytes = needs.weights_bytes - needs.weights[EMBEDDING] * (OUTPUT in needs.weights)
        kv = self._cache(needs.weights_bytes + needs.workspace_bytes)
        executor = make_executor(self._device, spec, weights, kv)
        try:
            for batch in plan.batches:
                for context in plan.contexts:
                    seconds = self._seconds(executor, kv, batch, context, 1)
                    floor = (read_bytes + batch * context * kv.bytes_per_token) / self.copy_rate
                    yield Figure("layerscale", precision, "decode", batch, context).timed(seconds, floor)
            for tokens in plan.prefills:
                seconds = self._seconds(executor, kv, 1, 0, tokens)
                floor = 2 * _layer_weights(spec) * tokens / self.matrix_rate
                yield Figure("layerscale", precision, "prefill", 1, tokens).timed(seconds, floor)
            context = plan.contexts[-1]
            seconds = self._query_seconds(executor, kv, context)
            yield Figure("layerscale", precision, "query of 20 tokens, 4 answered", 1, context).timed(seconds)
        finally:
            executor.close()

    def profile(self, precision: str) -> str:
        """Where a decode step's time goes, kernel by kernel."""
        spec, context = self._plan.spec, self._plan.contexts[-1]
        kv = _layout(spec, pages_each(_layout(spec, 1), context + 1))
        executor = make_executor(self._device, spec, ShapedWeights(spec, precision), kv)
        batch = step_batch(kv, 1, context, 1)
        executor.step(batch)
        with profile() as profiler:
            for _ in range(3):
                executor.step(batch)
        executor.close()
        order = "self_cpu_time_total" if self._place.type == "cpu" else "self_device_time_total"
        return str(profiler.key_averages().table(sort_by=order, row_limit=12, max_name_column_width=40))

    def _cache(self, taken_bytes: int) -> KVLayout:
        """Room for the largest case, or for what fits."""
        plan = self._plan
        tokens = max(*plan.contexts, *plan.prefills) + QUERY_TOKENS + ANSWER_TOKENS
        wanted = max(plan.batches) * pages_each(_layout(plan.spec, 1), tokens)
        room = int(0.9 * (self._device.allocator.stats().free_bytes - taken_bytes))
        return _layout(plan.spec, min(wanted, room // _layout(plan.spec, 1).total_bytes))

    def _seconds(self, executor: Executor, kv: KVLayout, num_seqs: int, cached: int, new: int) -> float | None:
        if num_seqs * pages_each(kv, cached + new) > kv.num_pages:
            return None
        batch = step_batch(kv, num_seqs, cached, new)
        return median_seconds(self._place, lambda: executor.step(batch), self._plan.repetitions)

    def _query_seconds(self, executor: Executor, kv: KVLayout, context: int) -> float | None:
        lengths = [QUERY_TOKENS, *[1] * (ANSWER_TOKENS - 1)]
        starts = [context, *range(context + QUERY_TOKENS, context + QUERY_TOKENS + ANSWER_TOKENS - 1)]
        if pages_each(kv, starts[-1] + 1) > kv.num_pages:
            return None
        batches = [step_batch(kv, 1, start, length) for start, length in zip(starts, lengths, strict=True)]
        return median_seconds(self._place, lambda: [executor.step(each) for each in batches], self._plan.repetitions)


def peer_figures(bench: Bench, place: torch.device, plan: Plan) -> Iterator[Figure]:
    """The same of ``transformers`` in bfloat16."""
    spec = plan.spec
    peer = TransformersPeer(spec, place)
    weight_bytes = 2 * (spec.num_parameters - spec.vocab_size * spec.hidden_size)
    kv_bytes = _layout(spec, 1).bytes_per_token
    for batch in plan.batches:
        for context in plan.contexts:
            try:
                seconds = peer.decode_seconds(batch, context, plan.repetitions)
            except torch.OutOfMemoryError:
                seconds = None
            floor = (weight_bytes + batch * context * kv_bytes) / bench.copy_rate
            yield Figure("transformers", "bf16", "decode", batch, context).timed(seconds, floor)
    for tokens in plan.prefills:
        floor = 2 * _layer_weights(spec) * tokens / bench.matrix_rate
        seconds = peer.prefill_seconds(tokens, plan.repetitions)
        yield Figure("transformers", "bf16", "prefill", 1, tokens).timed(seconds, floor)


def _layout(spec: ModelSpec, num_pages: int) -> KVLayout:
    attention = spec.layers[0].attention
    return KVLayout(num_pages, PAGE_SIZE, len(spec.layers), attention.num_kv_heads, attention.head_dim)


def _layer_weights(spec: ModelSpec) -> int:
    """Weights that every token of a prompt meets: all but embedding and head."""
    return spec.num_parameters - spec.vocab_size * spec.hidden_size * (1 if spec.tied_output else 2)


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


def describe_run(device: Device, bench: Bench) -> dict[str, Any]:
    """What a stranger needs to repeat the run."""
    return {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device.infos[0].description,
        "host": platform.platform(),
        "versions": {name: version(name) for name in ("layerscale-engine", "torch", "transformers")},
        "copy_rate_bytes_per_s": bench.copy_rate,
        "matrix_rate_operations_per_s": bench.matrix_rate,
    }


def as_markdown(run: dict[str, Any], figures: Sequence[Figure], profiles: dict[str, str]) -> str:
    """The report for people."""
    lines = [f"# {run['device']}, {run['date']}", "", f"`{run['command']}`", ""]
    lines += [f"{name} {number}" for name, number in run["versions"].items()]
    lines += [
        "",
        f"Copy {run['copy_rate_bytes_per_s'] / 1e12:.2f} TB/s, bf16 product "
        f"{run['matrix_rate_operations_per_s'] / 1e12:.0f} TFLOP/s, both measured in this run.",
        "",
        "| system | weights | work | batch | context | ms | of the best rate | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in figures:
        time = "does not fit" if each.milliseconds is None else f"{each.milliseconds:.2f}"
        part = "" if each.part is None else f"{each.part:.0%}"
        lines.append(
            f"| {each.system} | {each.weights} | {each.work} | {each.batch} | {each.context:,} | {time} | {part} "
            f"| {_target(each)} |"
        )
    for precision, table in profiles.items():
        lines += ["", f"## Three decode steps, {precision}", "", "```", table, "```"]
    return "\n".join(lines) + "\n"


def _target(figure: Figure) -> str:
    if figure.work.startswith("query"):
        return "25 ms"
    if figure.work == "prefill":
        return "60%"
    return f"{TARGETS[figure.weights]:.0%}" if figure.batch == 1 else ""


def main() -> None:
    """Measure, print, and write both reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", help="cuda or rocm; without it, the one that can serve here")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on torch's CPU device")
    arguments = parser.parse_args()
    plan, place = (DRY, torch.device("cpu")) if arguments.dry_run else (FULL, torch.device("cuda", 0))
    device = open_dry() if arguments.dry_run else open_gpu(arguments.backend)
    bench = Bench(device, place, plan)
    run = describe_run(device, bench)
    figures = [figure for precision in WEIGHTS for figure in bench.figures(precision)]
    profiles = {precision: bench.profile(precision) for precision in WEIGHTS}
    figures += peer_figures(bench, place, plan)
    arguments.results.mkdir(parents=True, exist_ok=True)
    name = "-".join(["gpu", *run["device"].lower().replace(",", "").split()[:3], run["date"][:10]])
    report = as_markdown(run, figures, profiles)
    (arguments.results / f"{name}.md").write_text(report)
    content = {**run, "figures": [asdict(figure) for figure in figures], "profiles": profiles}
    (arguments.results / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(report)


if __name__ == "__main__":
    main()
