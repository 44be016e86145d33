"""``layerscale bench rates``: prefill and decode, in process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from layerscale_core.host import inspect_host
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import FREE_TIER
from layerscale_server.assembly import Assembler, Assembly
from layerscale_server.bench.chart import Chart
from layerscale_server.bench.errors import BenchmarkError
from layerscale_server.bench.memory_bandwidth import measure_copy_bandwidth
from layerscale_server.bench.rates import DECODE, PREFILL, RateMeter, RatePlan, RateSample, measure_rates
from layerscale_server.bench.statistics import Spread
from layerscale_server.bench.step_bytes import step_bytes
from layerscale_server.commands.bench_options import COUNT, MODEL_ROWS, IntList, command, option, save
from layerscale_server.commands.tables import print_table
from layerscale_server.logging import configure_logging
from layerscale_server.metrics import Metrics
from layerscale_server.options import MODEL_IS_MISSING
from layerscale_server.settings import MIN_CONTEXT_LEN, Settings

_FORMULAS = """\
prefill = prompt tokens computed / time to the first token of the last prompt; depth = tokens in the cache before
decode  = tokens of all sequences after all have begun / time; each cell: median (p20 to p80)
of copy = (weights + keys and values of a step) / time of a step / bandwidth of copying memory on the same threads"""


@dataclass(frozen=True, slots=True)
class _Figure:
    """One row of the table.

    Attributes:
        bandwidth_share: part of the copy bandwidth that decoding reaches; None where it is not known.
    """

    what: str
    request_len: int
    depth: int
    batch_size: int
    tokens_per_s: Spread
    bandwidth_share: float | None


@click.pass_context
def _rates(
    ctx: click.Context,
    /,
    *,
    depths: tuple[int, ...],
    batches: tuple[int, ...],
    prompt_tokens: tuple[int, ...],
    output_tokens: int,
    repetitions: int,
    seed: int,
    json_path: Path | None,
    plot_path: Path | None,
    **values: Any,
) -> None:
    """Measure prefill and decode rates of a model in this process, without HTTP.

    Every batch can be measured, whatever a licence lets a server run at once: nothing is served.
    """
    if not values["model"]:
        raise click.UsageError(MODEL_IS_MISSING, ctx)
    configure_logging("text", "warning")
    plan = RatePlan(depths, batches, prompt_tokens, output_tokens, repetitions)
    # Answers to random tokens soon repeat themselves: with drafts the rate would say more about them than about steps.
    context = max(MIN_CONTEXT_LEN, plan.context_len)
    settings = Settings(**values, context=context, sessions=0, prompt_lookup="off")
    with _assembled(settings, max(batches)) as assembly:
        samples = list(measure_rates(RateMeter(assembly, seed), plan))
        bandwidth = _bandwidth(assembly, settings.threads)
        figures = list(_figures(samples, assembly, bandwidth))
        setting = {
            "model": assembly.model.model_id,
            "devices": [device.description for device in assembly.model.devices],
            "threads": settings.threads,
            "context": assembly.model.plan.context_len,
            "kv_cache_type": settings.kv_cache_type,
            "activation_type": settings.activation_type,
            "copy_bandwidth_bytes_per_s": bandwidth,
        }
    _print(setting, figures)
    report = {
        "setting": setting,
        "figures": [asdict(figure) for figure in figures],
        "samples": [asdict(sample) for sample in samples],
    }
    save(json_path, plot_path, report, list(_charts(figures)))


@contextlib.contextmanager
def _assembled(settings: Settings, num_sequences: int) -> Iterator[Assembly]:
    """The model as a server would load it, with room for so many sequences at once."""
    tier = replace(FREE_TIER, name="bench", max_burst_slots=num_sequences, max_sessions=0)
    assembly = Assembler(settings, PluginRegistry.discover(), tier, Metrics()).assemble()
    try:
        plan = assembly.model.plan
        if plan.is_clamped or plan.burst_slots < num_sequences:
            raise BenchmarkError(
                f"memory holds {plan.burst_slots} sequences of {plan.context_len} tokens at once, not {num_sequences} "
                f"of {settings.context}: smaller depths or batches, or a smaller --kv-cache-type, would fit"
            )
        yield assembly
    finally:
        assembly.close()


def _bandwidth(assembly: Assembly, num_threads: int | None) -> float | None:
    """Bytes in a second, on as many threads as compute; None where another memory is read as well, or instead."""
    on_accelerator = any(device.is_accelerator for device in assembly.model.devices)
    if on_accelerator or assembly.model.plan.request.host is not None:
        return None
    return measure_copy_bandwidth(num_threads or inspect_host().num_usable_cpus)


def _figures(samples: Sequence[RateSample], assembly: Assembly, bandwidth: float | None) -> Iterator[_Figure]:
    plan = assembly.model.plan
    for key in dict.fromkeys((each.what, each.request_len, each.depth, each.batch_size) for each in samples):
        what, request_len, depth, batch_size = key
        group = [each for each in samples if (each.what, each.request_len, each.depth, each.batch_size) == key]
        rate = Spread.of([each.tokens_per_s for each in group])
        share = None
        if what == DECODE and bandwidth is not None:
            mean_len = depth + request_len // 2
            read = step_bytes(
                assembly.model.spec, plan.request.weights_bytes, plan.layout.bytes_per_token, batch_size, mean_len
            )
            share = None if read is None else read * rate.median / batch_size / bandwidth
        yield _Figure(what, request_len, depth, batch_size, rate, share)


def _print(setting: dict[str, Any], figures: Sequence[_Figure]) -> None:
    rows = [
        (
            f"{figure.what} of {figure.request_len}",
            f"{figure.depth:,}",
            str(figure.batch_size),
            str(figure.tokens_per_s).strip(),
            "" if figure.bandwidth_share is None else f"{figure.bandwidth_share:.0%}",
        )
        for figure in figures
    ]
    title = f"{setting['model']} on {', '.join(setting['devices'])}"
    print_table(Console(), title, ("", "depth", "batch", "tokens/s", "of copy"), rows)
    click.echo(_FORMULAS)
    bandwidth = setting["copy_bandwidth_bytes_per_s"]
    if bandwidth is not None:
        click.echo(f"copying memory: {bandwidth / 1e9:.1f} GB/s, read and written")


def _charts(figures: Sequence[_Figure]) -> Iterator[Chart]:
    for what in (PREFILL, DECODE):
        lines: dict[str, list[tuple[float, float]]] = {}
        for figure in figures:
            if figure.what == what:
                name = f"{figure.batch_size} x {figure.request_len} tokens"
                lines.setdefault(name, []).append((figure.depth, figure.tokens_per_s.median))
        yield Chart(what, "tokens in the cache before", "tokens/s", lines)


rates = command(
    "rates",
    _rates,
    MODEL_ROWS,
    [
        option("--depths", type=IntList(0), default="0,2048", metavar="N,…", help="tokens in the cache before"),
        option("--batches", type=IntList(1), default="1,8", metavar="N,…", help="sequences at once"),
        option("--prompt-tokens", type=IntList(1), default="512", metavar="N,…", help="of a prompt, for prefill"),
        option("--output-tokens", type=click.IntRange(min=8), default=64, metavar="N", help="of an answer, for decode"),
        option("--repetitions", type=COUNT, default=3, metavar="N", help="of everything, in turn"),
    ],
)
