"""Start-up, memory and streaming of both engines as processes of their own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engine_comparison import SETTLE_S
from figures import Row
from http_stream import StreamTimes, stream_completion
from llama_cpp_peer import LlamaCppPeer, PeerOptions
from workloads import CONTEXT_LEN, Prompts, Workload

from layerscale_server.bench.server_process import LayerScaleProcess
from layerscale_server.bench.statistics import Spread

STREAM = Workload(512, 64)
ALLOWANCE_BYTES = 250 * 2**20
"""What the process may take beside the model file and the KV pool."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of the server process, in bytes.

    Attributes:
        after_load: when as many prompts as run at once have filled the KV pool.
        limit: model file, KV pool and the allowance.
    """

    at_ready: int
    after_load: int
    model_file: int
    kv_pool: int
    limit: int


def compare_starts(model_path: Path, flags: Sequence[str], setup: PeerOptions, repetitions: int) -> Row:
    """From the command to ready, in turn."""
    ours, peers = [], []
    for _ in range(repetitions):
        with (
            tempfile.NamedTemporaryFile() as log,
            LayerScaleProcess(model_path, log.file, "--context", str(CONTEXT_LEN), *flags) as server,
        ):
            ours.append(server.start_s * 1e3)
        with LlamaCppPeer(setup) as peer:
            peers.append(peer.start_s * 1e3)
    return Row("start to ready", "ms", False, Spread.of(ours), Spread.of(peers), str(setup))


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


def measure_memory(server: LayerScaleProcess, model_path: Path, kv_bytes_per_token: int, prompts: Prompts) -> Memory:
    """Resident memory of a fresh server, then with its KV pool in use."""
    at_ready = server.resident_bytes
    scheduler = server.description()["scheduler"]
    long_prompts = [prompts.next(CONTEXT_LEN - 16) for _ in range(scheduler["max_concurrent"])]
    with ThreadPoolExecutor(len(long_prompts)) as pool:
        list(pool.map(lambda prompt: stream_completion(server.address, prompt, 8), long_prompts))
    model_file = model_path.stat().st_size
    kv_pool = scheduler["max_sequences"] * scheduler["context"] * kv_bytes_per_token
    return Memory(at_ready, server.resident_bytes, model_file, kv_pool, model_file + kv_pool + ALLOWANCE_BYTES)
