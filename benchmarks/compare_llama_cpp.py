"""LayerScale and llama.cpp side by side, on one model, in one run.

    python benchmarks/compare_llama_cpp.py --model MODEL.gguf [--quick] [--json FILE] [--write FILE.md]

The peer is at its best: each figure is compared with whichever of its thread counts and attention kernels does best in
it. The two engines take turns. Both keep an fp16 KV cache and decode greedily.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine_comparison import Setups, any_setups, compare_engines, find_best_setups
from figures import Row, markdown, print_table
from layerscale_engine import LayerScaleEngine
from llama_cpp_peer import LlamaCppPeer
from process_comparison import SERVER_FLAGS, compare_memory, compare_starts, compare_streams
from workloads import BATCH, CONTEXT_LEN, FIGURES, SHORT, Prompts

from layerscale_core.version import __version__
from layerscale_server.bench.server_process import LayerScaleProcess

SERVER_OPTIONS: dict[str, tuple[str, type, str]] = {
    "--threads": ("num_threads", int, "host threads"),
    "--backend": ("backend", str, "backend"),
    "--activation-type": ("activation_type", str, "type of activations, int8 or int16"),
}
FORMULAS = (
    "prefill = prompt tokens / time to the first token; decode = (output tokens - 1) / (last - first token)",
    "peak memory = the most that was resident in the process and those it started, its interpreter and files included",
    "each cell: median (p20 to p80); ratio: how many times better LayerScale's median is",
)


def main() -> None:
    """Measure, print, and write what is needed to repeat it."""
    started, arguments = time.perf_counter(), _parse_arguments()
    model_path = arguments.model
    prompts = Prompts(arguments.seed)

    print("looking for llama.cpp's best settings", flush=True)
    setups = any_setups(model_path) if arguments.quick else find_best_setups(model_path, prompts)
    with LlamaCppPeer(setups[FIGURES[0]]) as peer:
        setting = describe_run(arguments) | {
            "llama.cpp": f"xllamacpp {peer.version}",
            "llama.cpp system": peer.system_info,
        }

    print("measuring the engines", flush=True)
    options = {name: getattr(arguments, name) for name in ("backend", "num_threads", "activation_type")}
    with LayerScaleEngine(model_path, CONTEXT_LEN, **options, max_running=BATCH.num_requests) as ours:
        setting["device"] = ours.device
        ours.complete(prompts.next(SHORT.prompt_len), SHORT.max_tokens)
        rows = list(compare_engines(ours, setups, prompts, arguments.repetitions))

    print("measuring the processes", flush=True)
    rows += _compare_processes(arguments, setups, prompts)
    setting["seconds in all"] = round(time.perf_counter() - started)
    _report(arguments, setting, rows)


def _compare_processes(arguments: argparse.Namespace, setups: Setups, prompts: Prompts) -> Iterator[Row]:
    flags, setup = _server_flags(arguments), setups[FIGURES[0]]
    yield compare_starts(arguments.model, flags, setup, arguments.repetitions)
    with (
        tempfile.NamedTemporaryFile() as log,
        LayerScaleProcess(arguments.model, log.file, *SERVER_FLAGS, *flags) as server,
    ):
        yield from compare_memory(server, setup, prompts)
        yield from compare_streams(server, setup, prompts, arguments.repetitions)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file that both engines read")
    parser.add_argument("--repetitions", type=int, help="runs of each figure and engine (default 5; 1 with --quick)")
    parser.add_argument(
        "--quick", action="store_true", help="see that it runs: once each, with any settings of the peer"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the prompts' token ids (default 0)")
    for name, (dest, kind, meaning) in SERVER_OPTIONS.items():
        parser.add_argument(name, dest=dest, type=kind, help=f"LayerScale's {meaning}; without it the server's default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write the table to FILE.md")
    arguments = parser.parse_args()
    if arguments.repetitions is None:
        arguments.repetitions = 1 if arguments.quick else 5
    return arguments


def _server_flags(arguments: argparse.Namespace) -> list[str]:
    values = {name: getattr(arguments, dest) for name, (dest, _, _) in SERVER_OPTIONS.items()}
    return [part for name, value in values.items() if value is not None for part in (name, str(value))]


def describe_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Date, command, model, versions and machine."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
        "model": arguments.model.name,
        "model bytes": arguments.model.stat().st_size,
        "seed": arguments.seed,
        "repetitions": arguments.repetitions,
        "LayerScale": __version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
    }


def _report(arguments: argparse.Namespace, setting: dict[str, Any], rows: Sequence[Row]) -> None:
    print()
    for name, value in setting.items():
        print(f"{name:18}{value}")
    print()
    print_table(rows)
    print(*FORMULAS, sep="\n")
    if arguments.json is not None:
        report = {"setting": setting, "rows": [row.to_json() for row in rows]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.write is not None:
        page = markdown(f"LayerScale and llama.cpp on {arguments.model.name}", setting, rows)
        arguments.write.write_text("\n".join([page, *(f"- {formula}" for formula in FORMULAS), ""]))


if __name__ == "__main__":
    main()
