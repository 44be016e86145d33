"""``layerscale bench streams``: what a question about data that keeps coming costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console

from layerscale_server.bench.chart import Chart
from layerscale_server.bench.market_feed import market_feed
from layerscale_server.bench.statistics import Percentiles
from layerscale_server.bench.stream_arms import NEW_ENTRIES, NUM_SLIDES, SIZES, WINDOW, Arms, Sample
from layerscale_server.bench.stream_session import SessionFollower
from layerscale_server.commands.bench_options import COUNT, SECONDS, IntList, command, option, save
from layerscale_server.commands.bench_target import SERVER_ROWS, Target, open_target, target_options
from layerscale_server.commands.tables import print_table

_FORMULAS = f"""\
every time starts when the question was due, {NEW_ENTRIES} entries after the one before, and not when it was sent
TTFT = first piece received - due    answer = last piece received - due
size = entries in the session; tokens = computed before the answer's first, by the server's own count (most)
stored = answers that were computed ahead
behind = entries that had come when the question was due and that the answer has not seen (most)
CPU = processor time of the server for {NEW_ENTRIES} entries and their question, where it was started by this command"""

_Group = tuple[str, int, Sequence[Sample]]


@click.pass_context
def _streams(
    ctx: click.Context,
    /,
    *,
    rate: float,
    sizes: tuple[int, ...],
    window: int,
    repetitions: int,
    seed: int,
    json_path: Path | None,
    plot_path: Path | None,
    **values: Any,
) -> None:
    """Push bars of a market into a session of a LayerScale server, and time questions about them.

    Three arms, never pooled: the data grows; a window slides; the question is registered, and answered ahead.
    """
    with open_target(ctx, values) as target:
        samples = list(_run(target, sorted(sizes), tick_s=1 / rate, window=window, repetitions=repetitions, seed=seed))
    groups = list(_groups(samples))
    _print(groups)
    setting = {"url": values["url"], "model": values["model"], "rate_per_s": rate, "window": window, "seed": seed}
    report = {"setting": setting, "samples": [asdict(sample) for sample in samples]}
    save(json_path, plot_path, report, [_chart(groups)])


def _run(
    target: Target, sizes: Sequence[int], *, tick_s: float, window: int, repetitions: int, seed: int
) -> Iterator[Sample]:
    feed = market_feed(max(*sizes, window + NUM_SLIDES * NEW_ENTRIES), seed)
    follower = SessionFollower("session", target.client, feed)
    registered = SessionFollower("session", target.client, feed, is_registered=True)
    try:
        for repetition in range(repetitions):
            arms = Arms(follower, tick_s, seed + repetition, target.cpu_s)
            yield from arms.append_only(sizes)
            yield from arms.sliding(window)
            follower.end()
            yield from Arms(registered, tick_s, seed + repetition, target.cpu_s).registered(sizes)
            registered.end()
    finally:
        follower.end()
        registered.end()


def _groups(samples: Sequence[Sample]) -> Iterator[_Group]:
    """The samples of each arm and size."""
    for key in dict.fromkeys((sample.arm, sample.size) for sample in samples):
        yield *key, [sample for sample in samples if (sample.arm, sample.size) == key]


def _print(groups: Sequence[_Group]) -> None:
    columns = ("size", "ms", "P50", "P90", "P99", "tokens", "stored", "behind", "CPU s")
    for arm in dict.fromkeys(arm for arm, _, _ in groups):
        of_arm = [(size, group) for each, size, group in groups if each == arm]
        rows = [row for size, group in of_arm for row in _rows(size, group)]
        print_table(Console(), f"{arm}: {len(of_arm[0][1])} questions a size", columns, rows)
    click.echo(_FORMULAS)


def _rows(size: int, group: Sequence[Sample]) -> Iterator[Sequence[str]]:
    counts = (
        str(max(sample.query.num_prefilled for sample in group)),
        str(sum(sample.query.is_stored for sample in group)),
        str(max(sample.entries_behind for sample in group)),
        f"{median(sample.cpu_s for sample in group):.2f}",
    )
    yield (str(size), "TTFT", *_in_ms([sample.ttft_s for sample in group]), *counts)
    yield ("", "answer", *_in_ms([sample.total_s for sample in group]), *[""] * len(counts))


def _in_ms(seconds: Sequence[float]) -> Sequence[str]:
    return [f"{value * 1e3:.1f}" for value in astuple(Percentiles.of(seconds))]


def _chart(groups: Sequence[_Group]) -> Chart:
    lines: dict[str, list[tuple[float, float]]] = {}
    for arm, size, group in groups:
        lines.setdefault(arm, []).append((size, median(sample.ttft_s for sample in group) * 1e3))
    return Chart("first token, P50", "entries in the session", "milliseconds since the question was due", lines)


streams = command(
    "streams",
    _streams,
    SERVER_ROWS,
    [
        *target_options(),
        option("--rate", type=SECONDS, default=2.0, metavar="PER_SECOND", help="entries that come in a second"),
        option(
            "--sizes",
            type=IntList(NEW_ENTRIES + 1),
            default=",".join(map(str, SIZES)),
            metavar="N,…",
            help="entries in the session when a question is asked",
        ),
        option("--window", type=COUNT, default=WINDOW, metavar="N", help="entries of the window that slides"),
        option("--repetitions", type=COUNT, default=3, metavar="N", help="of everything, in turn"),
    ],
)
