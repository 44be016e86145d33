"""Many sessions at once, each with Flash Queries and subscribers, under a stream of pushes.

    python benchmarks/session_load.py --model MODEL.gguf [--sessions 64] [--seconds 120]

Ends with exit code 1 unless all of this held: every push was acknowledged, and the counts of every session are exact;
versions of the data only grow; every subscriber saw every version in order, or was told goodbye by the end of its
stream; after the warm-up the server's memory stayed as it was.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from layerscale import LayerScale
from load_session import LoadSession, Outcome

from layerscale_core.licensing.authorities import Issuer
from layerscale_core.licensing.verifier import AUTHORITIES_VARIABLE
from layerscale_server.bench.server_process import LayerScaleProcess

KEY_VARIABLE = "LAYERSCALE_LICENSE_KEY"
WARM_UP_PART = 0.6
"""Of the run: then the first burst is computed, and every buffer has its size."""

MEMORY_SLACK = 0.03
"""Part of the resident memory that may come after the warm-up."""

MIN_SECONDS_OF_MEMORY = 60
"""A shorter run is all warm-up: its memory is shown, and not judged."""

_SAMPLE_S = 0.5


def main() -> int:
    """Run the load; returns the exit code."""
    arguments = _parse_arguments()
    with (
        pro_licence(),
        tempfile.NamedTemporaryFile() as log,
        LayerScaleProcess(
            arguments.model, log.file, "--context", str(arguments.context), "--sessions", str(arguments.sessions)
        ) as server,
    ):
        outcomes, resident = run_load(server, arguments)
    return report(outcomes, resident, is_judged=arguments.seconds >= MIN_SECONDS_OF_MEMORY)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model file to serve")
    parser.add_argument("--sessions", type=int, default=64, help="sessions at once (default 64)")
    parser.add_argument("--queries", type=int, default=4, help="Flash Queries of each (default 4)")
    parser.add_argument("--seconds", type=float, default=120, help="how long entries are pushed (default 120)")
    parser.add_argument(
        "--interval", type=float, default=1.0, help="mean seconds between a session's pushes (default 1)"
    )
    parser.add_argument("--window", type=int, default=8, help="entries in a session's window (default 8)")
    parser.add_argument("--context", type=int, default=512, help="tokens of a session's context (default 512)")
    parser.add_argument("--seed", type=int, default=0, help="of entries and moments (default 0)")
    return parser.parse_args()


@contextmanager
def pro_licence() -> Iterator[None]:
    """A key of an authority made for this run, in the environment of server and clients."""
    issuer, today = Issuer.generate(), datetime.now(UTC).date()
    with tempfile.TemporaryDirectory(prefix="layerscale-authority-") as folder:
        Path(folder, "authority.pem").write_bytes(issuer.authority.pem())
        key = issuer.issue(tier="pro", holder="benchmark", issued=today, expires=today + timedelta(days=7))
        with mock.patch.dict(os.environ, {AUTHORITIES_VARIABLE: folder, KEY_VARIABLE: key}):
            yield


def run_load(server: LayerScaleProcess, arguments: argparse.Namespace) -> tuple[Sequence[Outcome], Sequence[int]]:
    """Push to all sessions at once.

    Returns:
        What became of each session, and the server's resident bytes from the end of the warm-up on.
    """
    resident: list[int] = []
    is_over = threading.Event()
    started = time.monotonic()

    def watch_memory() -> None:
        while not is_over.wait(_SAMPLE_S):
            if time.monotonic() - started > WARM_UP_PART * arguments.seconds:
                resident.append(server.resident_bytes)

    with ExitStack() as clients, ThreadPoolExecutor(arguments.sessions + 1) as pool:
        sessions = [
            LoadSession(
                # One client's pool of connections would be empty before all subscribers have theirs.
                clients.enter_context(LayerScale(server.address)),
                random.Random(arguments.seed + number),
                arguments.queries,
                arguments.window,
            )
            for number in range(arguments.sessions)
        ]
        memory = pool.submit(watch_memory)
        deadline = time.monotonic() + arguments.seconds
        pushing = [pool.submit(session.push_until, deadline, arguments.interval) for session in sessions]
        try:
            for each in pushing:
                each.result()
            outcomes = [session.finish() for session in sessions]
        finally:
            is_over.set()
        memory.result()
    return outcomes, resident


def report(outcomes: Sequence[Outcome], resident: Sequence[int], *, is_judged: bool) -> int:
    """Print what happened; returns 0 if all held, memory included if it ``is_judged``."""
    pushed = sum(outcome.num_pushed for outcome in outcomes)
    versions = sum(outcome.num_versions for outcome in outcomes)
    answers = sum(outcome.num_answers for outcome in outcomes)
    slowest = max(outcome.slowest_push_s for outcome in outcomes)
    print(f"{len(outcomes)} sessions: {pushed} entries pushed, {versions} versions, {answers} answers that changed")
    print(f"slowest acknowledgement: {slowest * 1e3:.0f} ms")
    faults = [f"session {number}: {fault}" for number, each in enumerate(outcomes) for fault in each.faults]
    if resident:
        growth = max(resident) / resident[0] - 1
        print(f"resident memory after the warm-up: {resident[0] >> 20} MiB, at most {growth:+.1%}")
        if is_judged and growth > MEMORY_SLACK:
            faults.append(f"resident memory grew by {growth:.1%}")
    for fault in faults:
        print(f"FAULT {fault}")
    print("all held" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
