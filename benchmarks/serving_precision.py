"""What serving in smaller types costs: ``--kv-cache-type`` against fp16, ``--activation-type`` against int16.

On the texts of the oracle tests:

python -m benchmarks.serving_precision --model MODEL.gguf
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.precision import Cost, Setup, costs_against, model_argument, print_costs
from layerscale_core.specs import ActivationType, KVType

SETUPS = {
    "int8 KV": Setup(KVType.INT8),
    "int4 KV": Setup(KVType.INT4),
    "int8 activations": Setup(activation_type=ActivationType.INT8),
}


def measure(model_path: Path, max_text_len: int | None = None) -> dict[str, Cost]:
    """Compare each with fp16 and int16."""
    return costs_against(Setup(), SETUPS, model_path, max_text_len)


def main() -> int:
    """Print one line a precision."""
    print_costs(measure(model_argument(__doc__)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
