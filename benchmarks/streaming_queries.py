"""Questions about bars that keep coming: a LayerScale session, llama.cpp with its prompt cache, and LayerScale without.

    python benchmarks/streaming_queries.py --model MODEL.gguf --bars GOOG.csv [--json FILE]

Three arms, never pooled: the context grows; a window slides; the question is registered. Same weights, same tokens,
greedy, answers of the same length. All systems take turns on one machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
from compare_llama_cpp import describe_run
from llama_cpp_peer import LlamaCppPeer, PeerOptions
from market_bars import Market, read_market
from streaming_systems import Rereader

from layerscale_core.host import inspect_host
from layerscale_server.bench.api_client import ApiClient
from layerscale_server.bench.server_process import LayerScaleProcess
from layerscale_server.bench.statistics import Percentiles
from layerscale_server.bench.stream_arms import SIZES, WINDOW, Arms, Sample
from layerscale_server.bench.stream_session import SessionFollower

CONTEXT_LEN = 8192
REUSED_CHUNK_LEN = 64

SESSION, REGISTERED, CONTROL, PEER = "session", "registered", "stateless", "llama.cpp"

_FORMULAS = """\
every time starts when the question was due, not when it was sent
TTFT  = first token received - question due        answer = last token received - question due
TPOT  = (last token - first token) / (output tokens - 1)
prefilled = tokens computed before the first one of the answer, by the server's own count
behind    = bars that had come when the question was due and that the answer has not seen (most)
CPU       = processor time of the server for ten bars and their question: what comes is charged, not only what is asked
stateless = the same LayerScale server, asked without a session, with its prefix cache"""


def main() -> None:
    """Measure, print, and write what is needed to repeat it."""
    arguments = _parse_arguments()
    market = read_market(arguments.bars, arguments.model)
    print("looking for llama.cpp's best settings", flush=True)
    setup = _best_setup(arguments.model, market)
    samples: list[Sample] = []
    flags = [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    with (
        tempfile.NamedTemporaryFile() as log,
        LayerScaleProcess(arguments.model, log.file, "--context", str(CONTEXT_LEN), *flags) as server,
        LlamaCppPeer(setup) as peer,
        ApiClient(server.address) as client,
        ApiClient(peer.address) as peer_client,
    ):
        setting = describe_run(arguments) | {
            "llama.cpp": f"xllamacpp {peer.version}, {setup}, reuses shifted chunks from {REUSED_CHUNK_LEN} tokens on",
            "one bar in": f"{arguments.tick} s",
        }
        session = SessionFollower(SESSION, client, market.feed)
        registered = SessionFollower(REGISTERED, client, market.feed, is_registered=True)
        rereaders = (
            (Rereader(CONTROL, client, market), lambda: server.cpu_s),
            (Rereader(PEER, peer_client, market), lambda: peer.cpu_s),
        )
        for repetition in range(arguments.repetitions):
            print(f"repetition {repetition + 1} of {arguments.repetitions}", flush=True)
            # A question's moment is random, and in one repetition the same for all systems.
            seed = arguments.seed + repetition
            for system, cpu_s in ((session, lambda: server.cpu_s), *rereaders):
                arms = Arms(system, arguments.tick, seed, cpu_s)
                samples += arms.append_only()
                samples += arms.sliding()
            assert session.prefix_len == len(market.prefix_ids), "the systems read different tokens"
            session.end()
            samples += Arms(registered, arguments.tick, seed, lambda: server.cpu_s).registered()
            registered.end()
    _print_report(setting, samples)
    if arguments.json is not None:
        report = {"setting": setting, "samples": [asdict(sample) for sample in samples]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file that both engines read")
    parser.add_argument("--bars", type=Path, required=True, help="CSV file: date, open, high, low, close, volume")
    parser.add_argument("--repetitions", type=int, default=5, help="runs of each arm and system (default 5)")
    parser.add_argument("--tick", type=float, default=0.5, help="seconds from one bar to the next (default 0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of the questions' moments (default 0)")
    parser.add_argument("--threads", type=int, help="LayerScale's host threads; without it the backend decides")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    return parser.parse_args()


def _best_setup(model_path: Path, market: Market) -> PeerOptions:
    """The peer's thread count and attention kernel that answer soonest, after ten new bars at 60."""
    num_cpus = inspect_host().num_usable_cpus
    seconds: dict[PeerOptions, float] = {}
    for num_threads in sorted({max(1, num_cpus // 2), num_cpus}):
        for flash_attention in ("enabled", "disabled"):
            options = PeerOptions(
                model_path, CONTEXT_LEN, num_threads, flash_attention, reused_chunk_len=REUSED_CHUNK_LEN
            )
            with LlamaCppPeer(options) as peer, ApiClient(peer.address) as client:
                system = Rereader(PEER, client, market)
                (sample,) = Arms(system, 0.0, 0, lambda: 0.0).append_only((60,))
            seconds[options] = sample.total_s
    return min(seconds, key=lambda options: seconds[options])


def _print_report(setting: dict[str, object], samples: Sequence[Sample]) -> None:
    print()
    for name, value in setting.items():
        print(f"{name:18}{value}")
    print()
    print(_FORMULAS)
    for arm in dict.fromkeys(sample.arm for sample in samples):
        print(f"\n{arm}")
        print(
            f"{'bars':>5} {'system':11} {'n':>3} {'TTFT ms: P50':>13} {'P90':>8} {'P99':>8} {'answer ms: P50':>15}"
            f" {'P90':>8} {'P99':>8} {'TPOT ms':>8} {'prefilled':>9} {'stored':>7} {'behind':>6} {'CPU s':>6}"
        )
        for size, system, group in _groups(samples, arm):
            print(_line(size, system, group))
    print()
    for line in _goals(samples):
        print(line)


def _groups(samples: Sequence[Sample], arm: str) -> Iterator[tuple[int, str, list[Sample]]]:
    of_arm = [sample for sample in samples if sample.arm == arm]
    for size, system in sorted({(sample.size, sample.system) for sample in of_arm}):
        yield size, system, [sample for sample in of_arm if (sample.size, sample.system) == (size, system)]


def _line(size: int, system: str, group: Sequence[Sample]) -> str:
    ttft = "{:>13.1f} {:>8.1f} {:>8.1f}".format(*astuple(_percentiles(group, lambda sample: sample.ttft_s)))
    total = "{:>15.1f} {:>8.1f} {:>8.1f}".format(*astuple(_percentiles(group, lambda sample: sample.total_s)))
    tpot = np.median([sample.query.tpot_s for sample in group]) * 1e3
    prefilled = max(sample.query.num_prefilled for sample in group)
    num_stored = sum(sample.query.is_stored for sample in group)
    behind = max(sample.entries_behind for sample in group)
    cpu_s = np.median([sample.cpu_s for sample in group])
    return (
        f"{size:5} {system:11} {len(group):3} {ttft} {total} {tpot:8.1f} {prefilled:9} {num_stored:7} {behind:6}"
        f" {cpu_s:6.2f}"
    )


def _percentiles(group: Sequence[Sample], read: Callable[[Sample], float]) -> Percentiles:
    """In milliseconds."""
    return Percentiles.of([read(sample) * 1e3 for sample in group])


def _goals(samples: Sequence[Sample]) -> Iterator[str]:
    def median_ms(arm: str, system: str, size: int, read: Callable[[Sample], float]) -> float:
        group = [sample for sample in samples if (sample.arm, sample.system, sample.size) == (arm, system, size)]
        return _percentiles(group, read).p50

    for name, read in ("first token", lambda sample: sample.ttft_s), ("whole answer", lambda sample: sample.total_s):
        ours, peer = (median_ms("append-only", system, WINDOW, read) for system in (SESSION, PEER))
        first, last = (median_ms("append-only", SESSION, size, read) for size in (SIZES[0], SIZES[-1]))
        slid, peer_slid = (median_ms("sliding window", system, WINDOW, read) for system in (SESSION, PEER))
        yield (
            f"{name}: {peer / ours:.1f} times llama.cpp's speed at {WINDOW} bars, {peer_slid / slid:.1f} times as the"
            f" window slides; {last / first - 1:+.0%} from {SIZES[0]} to {SIZES[-1]} bars"
        )
    stored = [sample for sample in samples if sample.arm == "registered, fresh"]
    yield f"a registered question with a fresh answer: {_percentiles(stored, lambda sample: sample.total_s).p50:.2f} ms"


if __name__ == "__main__":
    main()
