"""``layerscale bench serving``: a Poisson load on any server with OpenAI's API."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from layerscale_server.bench.chart import Chart
from layerscale_server.bench.load import Load, arrivals, send_all
from layerscale_server.bench.openai_api import Answer, OpenAIServer
from layerscale_server.bench.serving import ServingSummary, summarise
from layerscale_server.bench.statistics import Objectives
from layerscale_server.commands.bench_options import COUNT, SECONDS, command, option, save
from layerscale_server.commands.bench_target import SERVER_ROWS, open_target, target_options
from layerscale_server.commands.tables import print_table

_FORMULAS = """\
every time starts when the request was due, not when it was sent
TTFT = first piece received - due    TPOT = (last piece - first piece) / (output tokens - 1)
ITL  = from each piece to the next, of all answers    E2E = last piece received - due
goodput = requests that were answered within all objectives"""


@click.pass_context
def _serving(
    ctx: click.Context,
    /,
    *,
    requests: int,
    rate: float,
    prompt_tokens: int,
    output_tokens: int,
    length_spread: float,
    api: str,
    served_model: str | None,
    ignore_eos: bool,
    slo_ttft: float | None,
    slo_tpot: float | None,
    slo_e2e: float | None,
    seed: int,
    json_path: Path | None,
    plot_path: Path | None,
    **values: Any,
) -> None:
    """Send requests at random moments to a server with OpenAI's API, and time the streamed answers.

    The server is one that runs, LayerScale or another (--url), or LayerScale with a model (--model).
    """
    load = Load(requests, rate, prompt_tokens, output_tokens, length_spread, seed)
    objectives = Objectives(*(None if each is None else each / 1e3 for each in (slo_ttft, slo_tpot, slo_e2e)))
    with open_target(ctx, values) as target:
        server = OpenAIServer(target.client, api, served_model, ignores_eos=ignore_eos, seed=seed)
        answers = _send(server, load)
    summary = summarise(answers, objectives)
    _print(server.model, summary, objectives)
    report = {
        "setting": {"model": server.model, "api": api, "url": values["url"]} | asdict(load) | asdict(objectives),
        "summary": asdict(summary) | {"goodput": summary.goodput},
        "samples": [asdict(answer) for answer in answers],
    }
    save(json_path, plot_path, report, [_chart(answers)])


def _send(server: OpenAIServer, load: Load) -> list[Answer]:
    requests = [
        (each.due_s, functools.partial(server.ask, server.prompt(each.prompt_len), each.output_len))
        for each in arrivals(load)
    ]
    return send_all(requests)


def _print(model: str, summary: ServingSummary, objectives: Objectives) -> None:
    console = Console()
    rates = [
        ("requests", f"{summary.num_requests}", f"{summary.per_second(summary.num_answers):.2f}"),
        ("output tokens", f"{summary.num_output_tokens:,}", f"{summary.per_second(summary.num_output_tokens):.1f}"),
        ("prompt tokens", f"{summary.num_prompt_tokens:,}", f"{summary.per_second(summary.num_prompt_tokens):.1f}"),
        (f"goodput ({_in_words(objectives)})", f"{summary.goodput:.1%}", f"{summary.per_second(summary.num_good):.2f}"),
        ("errors", f"{summary.num_requests - summary.num_answers}", ""),
    ]
    print_table(console, f"{model}, {summary.duration_s:.1f} s", ("", "count", "per second"), rates)
    latencies = [
        (name, *(f"{seconds * 1e3:.1f}" for seconds in (each.p50, each.p90, each.p99)))
        for name, each in summary.latencies_s.items()
    ]
    print_table(console, "Latencies in milliseconds", ("", "P50", "P90", "P99"), latencies)
    print_table(console, "Errors", ("", "count"), [(text, str(count)) for text, count in summary.errors.items()])
    click.echo(_FORMULAS)


def _in_words(objectives: Objectives) -> str:
    said = [
        f"{field.name.removesuffix('_s').upper()} within {limit * 1e3:g} ms"
        for field in fields(objectives)
        if (limit := getattr(objectives, field.name)) is not None
    ]
    return ", ".join(said) or "no objectives"


def _chart(answers: Sequence[Answer]) -> Chart:
    """How many answers had begun and ended within a time."""
    answered = [each for each in answers if each.error is None]
    samples = {"TTFT": [each.ttft_s for each in answered], "E2E": [each.e2e_s for each in answered]}
    lines = {
        name: [(seconds * 1e3, 100 * (number + 1) / len(times)) for number, seconds in enumerate(sorted(times))]
        for name, times in samples.items()
    }
    return Chart("answers within a time", "milliseconds since they were due", "% of answers", lines)


def _objective(name: str, meaning: str) -> click.Option:
    return click.Option([f"--slo-{name}"], type=SECONDS, metavar="MS", help=f"objective for goodput: {meaning}")


serving = command(
    "serving",
    _serving,
    SERVER_ROWS,
    [
        *target_options(),
        option("--requests", type=COUNT, default=50, metavar="N", help="how many are sent"),
        option("--rate", type=SECONDS, default=1.0, metavar="PER_SECOND", help="how many come in a second, on average"),
        option("--prompt-tokens", type=COUNT, default=512, metavar="N", help="tokens of a prompt, on average"),
        option("--output-tokens", type=COUNT, default=64, metavar="N", help="tokens of an answer, on average"),
        option(
            "--length-spread",
            type=click.FloatRange(0, 1),
            default=0.5,
            metavar="PART",
            help="lengths vary by so much of the mean to both sides",
        ),
        option(
            "--api", type=click.Choice(["completions", "chat"]), default="completions", help="which of OpenAI's routes"
        ),
        click.Option(["--served-model"], metavar="ID", help="the server's id of the model; without it its first"),
        click.Option(
            ["--ignore-eos/--respect-eos"],
            default=True,
            help="ask for answers of full length, or let the model end them, for servers that know no ignore_eos",
        ),
        _objective("ttft", "time to first token"),
        _objective("tpot", "time per output token"),
        _objective("e2e", "time to the last token"),
    ],
)
