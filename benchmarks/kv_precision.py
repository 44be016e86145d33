"""What a smaller KV cache costs in accuracy: each precision against fp16, on the texts of the oracle tests.

python -m benchmarks.kv_precision --model MODEL.gguf
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.precision import Cost, Setup, costs_against, model_argument, print_costs
from layerscale_core.specs import KVType


def measure(model_path: Path, kv_types: Sequence[KVType], max_text_len: int | None = None) -> dict[str, Cost]:
    """Compare each precision with fp16."""
    return costs_against(Setup(), {str(kv_type): Setup(kv_type) for kv_type in kv_types}, model_path, max_text_len)


def main() -> int:
    """Print one line a precision."""
    print_costs(measure(model_argument(__doc__), [KVType.INT8, KVType.INT4]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
