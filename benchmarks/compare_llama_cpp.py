"""LayerScale and llama.cpp side by side, on one model, in one run.

    python benchmarks/compare_llama_cpp.py --model MODEL.gguf [--json FILE]

The peer is at its best: each figure is compared with whichever of its thread counts and attention kernels does best in
it. The two engines take turns. Both keep an fp16 KV cache and decode greedily.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine_comparison import compare_engines, find_best_setups
from figures import Row, print_table
from layerscale_engine import LayerScaleEngine
from llama_cpp_peer import LlamaCppPeer
from process_comparison import Memory, compare_starts, compare_streams, measure_memory
from workloads import CONTEXT_LEN, FIGURES, SHORT, Prompts

from layerscale_core.version import __version__
from layerscale_server.bench.server_process import LayerScaleProcess

_MIB = 1 << 20


def main() -> None:
    """Measure, print, and write what is needed to repeat it."""
    arguments = _parse_arguments()
    model_path, repetitions = arguments.model, arguments.repetitions
    prompts = Prompts(arguments.seed)

    print("looking for llama.cpp's best settings", flush=True)
    setups = find_best_setups(model_path, prompts)
    with LlamaCppPeer(setups[FIGURES[0]]) as peer:
        setting = describe_run(arguments) | {
            "llama.cpp": f"xllamacpp {peer.version}",
            "llama.cpp system": peer.system_info,
        }

    print("measuring the engines", flush=True)
    with LayerScaleEngine(model_path, CONTEXT_LEN, arguments.backend, arguments.threads) as ours:
        setting["device"] = ours.device
        kv_bytes_per_token = ours.kv_bytes_per_token
        ours.complete(prompts.next(SHORT.prompt_len), SHORT.max_tokens)
        rows = list(compare_engines(ours, setups, prompts, repetitions))

    print("measuring the processes", flush=True)
    flags = _server_flags(arguments)
    rows.append(compare_starts(model_path, flags, setups[FIGURES[0]], repetitions))
    with (
        tempfile.NamedTemporaryFile() as log,
        LayerScaleProcess(model_path, log.file, "--context", str(CONTEXT_LEN), *flags) as server,
    ):
        memory = measure_memory(server, model_path, kv_bytes_per_token, prompts)
        rows += compare_streams(server, setups[FIGURES[0]], prompts, repetitions)

    _print_report(setting, rows, memory)
    if arguments.json is not None:
        report = {"setting": setting, "rows": [row.to_json() for row in rows], "memory": asdict(memory)}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file that both engines read")
    parser.add_argument("--repetitions", type=int, default=5, help="runs of each figure and engine (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts' token ids (default 0)")
    parser.add_argument("--threads", type=int, help="LayerScale's host threads; without it the backend decides")
    parser.add_argument("--backend", help="LayerScale's backend; without it the one that scores highest")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    return parser.parse_args()


def _server_flags(arguments: argparse.Namespace) -> list[str]:
    flags = [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    return flags if arguments.backend is None else [*flags, "--backend", arguments.backend]


def describe_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Date, model, versions and machine."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": arguments.model.name,
        "model bytes": arguments.model.stat().st_size,
        "seed": arguments.seed,
        "repetitions": arguments.repetitions,
        "LayerScale": __version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
    }


def _print_report(setting: dict[str, Any], rows: list[Row], memory: Memory) -> None:
    print()
    for name, value in setting.items():
        print(f"{name:18}{value}")
    print()
    print_table(rows)
    print()
    sizes = {name: size // _MIB for name, size in asdict(memory).items()}
    print("resident memory: {at_ready} MiB at ready, {after_load} MiB with a full KV pool".format(**sizes))
    print("  limit: {limit} MiB = {model_file} model file + {kv_pool} KV pool + 250".format(**sizes))
    print("prefill = prompt tokens / time to the first token; decode = (output tokens - 1) / (last - first token)")
    print("each cell: median (p20 to p80); ratio: how many times better LayerScale's median is")


if __name__ == "__main__":
    main()
