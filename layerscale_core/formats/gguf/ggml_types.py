"""The types of a tensor's elements that ggml numbers, and which of them can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerscale_core.formats.gguf import blocks, grid_blocks, small_blocks
from layerscale_core.models import Matrix


@dataclass(frozen=True, slots=True)
class GgmlType:
    """How one type is stored.

    Attributes:
        block_size: weights in a block; a row is whole blocks.
        block_bytes: bytes of a block.
        read: raw rows, uint8 [rows, bytes of a row], into an internal layout, freshly allocated.
    """

    name: str
    block_size: int
    block_bytes: int
    read: Callable[[NDArray[np.uint8]], Matrix]


GGML_TYPES: dict[int, GgmlType] = {
    0: GgmlType("F32", 1, 4, blocks.read_f32),
    1: GgmlType("F16", 1, 2, blocks.read_f16),
    2: GgmlType("Q4_0", 32, 18, blocks.read_q4_0),
    3: GgmlType("Q4_1", 32, 20, blocks.read_q4_1),
    6: GgmlType("Q5_0", 32, 22, blocks.read_q5_0),
    7: GgmlType("Q5_1", 32, 24, blocks.read_q5_1),
    8: GgmlType("Q8_0", 32, 34, blocks.read_q8_0),
    10: GgmlType("Q2_K", 256, 84, blocks.read_q2_k),
    11: GgmlType("Q3_K", 256, 110, blocks.read_q3_k),
    12: GgmlType("Q4_K", 256, 144, blocks.read_q4_k),
    13: GgmlType("Q5_K", 256, 176, blocks.read_q5_k),
    14: GgmlType("Q6_K", 256, 210, blocks.read_q6_k),
    16: GgmlType("IQ2_XXS", 256, 66, grid_blocks.read_iq2_xxs),
    18: GgmlType("IQ3_XXS", 256, 98, grid_blocks.read_iq3_xxs),
    20: GgmlType("IQ4_NL", 32, 18, blocks.read_iq4_nl),
    21: GgmlType("IQ3_S", 256, 110, grid_blocks.read_iq3_s),
    23: GgmlType("IQ4_XS", 256, 136, blocks.read_iq4_xs),
    30: GgmlType("BF16", 1, 2, blocks.read_bf16),
    34: GgmlType("TQ1_0", 256, 54, small_blocks.read_tq1_0),
    35: GgmlType("TQ2_0", 256, 66, small_blocks.read_tq2_0),
    39: GgmlType("MXFP4", 32, 17, small_blocks.read_mxfp4),
}

UNSUPPORTED_TYPES: dict[int, str] = {
    9: "Q8_1",
    15: "Q8_K",
    17: "IQ2_XS",
    19: "IQ1_S",
    22: "IQ2_S",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    40: "NVFP4",
    41: "Q1_0",
}
"""Names for the error line: types that exist and have no internal layout here."""
