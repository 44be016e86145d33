"""What a smaller KV cache costs in accuracy: each precision against fp16, on the texts of the oracle tests.

python -m benchmarks.kv_precision --model MODEL.gguf
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.precision import Cost, costs_against, layout_for, print_costs, read_texts
from layerscale_backend_cpu.backend import CpuBackend
from layerscale_core.formats.gguf import GgufModelFile
from layerscale_core.forward import make_executor
from layerscale_core.specs import BackendOptions, Executor, KVLayout, KVType


def measure(model_path: Path, kv_types: Sequence[KVType]) -> dict[str, Cost]:
    """Compare each precision with fp16."""
    file = GgufModelFile(model_path)
    texts = read_texts(file.make_tokenizer())
    device = CpuBackend().load(BackendOptions())

    def open_executor(kv_type: KVType) -> tuple[Executor, KVLayout]:
        layout = layout_for(file.spec, texts, kv_type)
        return make_executor(device, file.spec, file.weights, layout), layout

    executors = {str(kv_type): open_executor(kv_type) for kv_type in (KVType.FP16, *kv_types)}
    others = {name: executors[name] for name in map(str, kv_types)}
    costs = costs_against(executors[KVType.FP16], others, texts)
    for executor, _ in executors.values():
        executor.close()
    file.close()
    return costs


def main() -> int:
    """Print one line a precision."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    print_costs(measure(parser.parse_args().model, [KVType.INT8, KVType.INT4]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
