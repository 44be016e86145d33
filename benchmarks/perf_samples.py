"""Where a process spends its processor time, by Linux's ``perf``: sampled, counted by symbol, and summed by part."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SAMPLES_PER_S = 1999
"""Of each thread that runs; a prime, so that nothing periodic is met at the same place again and again."""

ATTACH_S = 0.5
"""Until perf has found all threads. What the process does not do in the meantime is not sampled."""

_PARTS = {
    "quantising activations": r"Activations::",
    "attention": r"[Aa]ttend|[Aa]ttention::|weigh_|add_values|put_scores|exponentiate|pair_|fold_|round_query"
    r"|KvCache|KvFormat|store_kv|Hadamard",
    "matrix products": r"multiply|add_kind|dot_|panel|project|gated_mlp|unpack_row|Matrix",
    "threads waiting": r"ThreadPool::(?!call)",
    "norms and other elementwise": r"layerscale::",
}
"""Patterns of the native kernels' symbols, tried in this order: a loop's body is named after what it computes."""

_NATIVE = "_native_"
_KERNEL = "[kernel"
SYSTEM, REST = "the system", "Python and the rest"
PARTS = (*_PARTS, SYSTEM, REST)


class PerfError(Exception):
    """There is no perf, or it may not sample."""


@dataclass(slots=True)
class Samples:
    """How often each symbol was met, by shared object and name."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def shares(self) -> dict[str, float]:
        """Each part's share of the samples."""
        totals = Counter(dict.fromkeys(PARTS, 0))
        for (shared_object, symbol), count in self.counts.items():
            totals[part_of(shared_object, symbol)] += count
        return {part: totals[part] / max(1, self.counts.total()) for part in PARTS}


def part_of(shared_object: str, symbol: str) -> str:
    """The part that a symbol belongs to."""
    if shared_object.startswith(_KERNEL):
        return SYSTEM
    if not shared_object.startswith(_NATIVE):
        return REST
    return next((part for part, pattern in _PARTS.items() if re.search(pattern, symbol)), REST)


@contextlib.contextmanager
def sampled(path: Path) -> Iterator[Samples]:
    """Sample all threads of this process meanwhile; what was found is there at the end.

    Args:
        path: where perf may write.

    Raises:
        PerfError: with what is wrong and what to do.
    """
    if shutil.which("perf") is None:
        raise PerfError("perf is not installed: it comes with Linux, in a package named perf or linux-tools")
    command = ["perf", "record", "--quiet", "--event", "cpu-clock", "--freq", str(SAMPLES_PER_S)]
    command += ["--pid", str(os.getpid()), "--output", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as perf:
        samples = Samples()
        time.sleep(ATTACH_S)
        try:
            if perf.poll() is not None:
                assert perf.stderr is not None
                raise PerfError(f"perf may not sample here (see kernel.perf_event_paranoid): {perf.stderr.read()}")
            yield samples
        finally:
            perf.send_signal(signal.SIGINT)
    samples.counts = read_counts(path)


def read_counts(path: Path) -> Counter[tuple[str, str]]:
    """The samples of a recording."""
    command = [
        "perf",
        "report",
        "--stdio",
        "--input",
        str(path),
        "--fields",
        "sample,dso,sym",
        "--field-separator",
        "|",
    ]
    return parse_counts(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parse_counts(report: str) -> Counter[tuple[str, str]]:
    """The lines of a report: samples, shared object, and the symbol behind the letter of its kind."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in report.splitlines():
        match line.split("|", 2):
            case [count, shared_object, symbol] if count.strip().isdecimal():
                counts[shared_object.strip(), symbol.strip().removeprefix("[.] ").removeprefix("[k] ")] += int(count)
    return counts
