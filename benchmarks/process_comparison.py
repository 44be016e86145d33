"""Start-up, memory and streaming of both engines as processes of their own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
from engine_comparison import SETTLE_S
from figures import Row
from http_stream import StreamTimes, stream_completion
from llama_cpp_peer import LlamaCppPeer, PeerOptions
from workloads import CONTEXT_LEN, Prompts, Workload

from layerscale_server.bench.server_process import LayerScaleProcess
from layerscale_server.bench.statistics import Spread

STREAM = Workload(512, 64)
FILLING = Workload(CONTEXT_LEN - 16, 8)
"""Fills one context, but for a few tokens."""

SERVER_FLAGS = ("--context", str(CONTEXT_LEN), "--sessions", "0", "--prompt-lookup", "off")


def compare_starts(model_path: Path, flags: Sequence[str], setup: PeerOptions, repetitions: int) -> Row:
    """From the command to ready, in turn; once before, so that both find their files in memory."""
    ours, peers = [], []
    for _ in range(1 + repetitions):
        with (
            tempfile.NamedTemporaryFile() as log,
            LayerScaleProcess(model_path, log.file, *SERVER_FLAGS, *flags) as server,
        ):
            ours.append(server.start_s * 1e3)
        with LlamaCppPeer(setup) as peer:
            peers.append(peer.start_s * 1e3)
    return Row("command to ready", "ms", False, Spread.of(ours[1:]), Spread.of(peers[1:]), str(setup))


def compare_streams(
    server: LayerScaleProcess, setup: PeerOptions, prompts: Prompts, repetitions: int
) -> tuple[Row, Row]:
    """A streamed completion over HTTP, in turn: time to first token and time per output token."""
    ours: list[StreamTimes] = []
    peers: list[StreamTimes] = []
    with LlamaCppPeer(setup) as peer:
        for _ in range(repetitions):
            for address, times in ((server.address, ours), (peer.address, peers)):
                time.sleep(SETTLE_S)
                times.append(stream_completion(address, prompts.next(STREAM.prompt_len), STREAM.max_tokens))

    def row(name: str, read: Callable[[StreamTimes], float]) -> Row:
        our_spread, peer_spread = (Spread.of([read(each) * 1e3 for each in times]) for times in (ours, peers))
        return Row(f"{name} over HTTP", "ms", False, our_spread, peer_spread, str(setup))

    return row("TTFT of 512 tokens", lambda times: times.ttft_s), row("TPOT", lambda times: times.tpot_s)


def compare_memory(server: LayerScaleProcess, setup: PeerOptions, prompts: Prompts) -> tuple[Row, Row]:
    """Peak resident memory, at ready and when each sequence for which memory is reserved has filled its context.

    The peer gets as many slots with as long a context, and saves no prompts beside its KV cache.

    Args:
        server: one that has not been asked anything.
    """
    num_sequences = server.description()["scheduler"]["max_sequences"]
    setup = replace(setup, context_len=num_sequences * CONTEXT_LEN, num_slots=num_sequences, saved_prompts_mib=0)
    samples = []
    with LlamaCppPeer(setup) as peer:
        for address, pid in ((server.address, server.pid), (peer.address, peer.pid)):
            at_ready = peak_resident_mib(pid)
            filling = [prompts.next(FILLING.prompt_len) for _ in range(num_sequences)]
            with ThreadPoolExecutor(num_sequences) as pool:
                list(pool.map(lambda prompt: stream_completion(address, prompt, FILLING.max_tokens), filling))  # noqa: B023
            samples.append((Spread.of([at_ready]), Spread.of([peak_resident_mib(pid)])))
    (our_start, our_peak), (peer_start, peer_peak) = samples
    return (
        Row("peak memory at ready", "MiB", False, our_start, peer_start, str(setup)),
        Row(f"peak memory, {num_sequences} x {CONTEXT_LEN:,} tokens", "MiB", False, our_peak, peer_peak, str(setup)),
    )


def peak_resident_mib(pid: int) -> float:
    """The most memory that a process, and those that it started, have had resident, as Linux counts it (``VmHWM``)."""
    process = psutil.Process(pid)
    tree = [process, *process.children(recursive=True)]
    return sum(_peak_kib(each.pid) for each in tree) / 1024


def _peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
