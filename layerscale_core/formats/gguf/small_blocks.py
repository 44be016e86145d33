"""ggml's ternary blocks and those of 4-bit floats. Each function is as those of ``blocks``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscale_core.models import QuantizedMatrix

Bytes = NDArray[np.uint8]

TQ1_0 = np.dtype([("fives", "u1", 32), ("short_fives", "u1", 16), ("fours", "u1", 4), ("scale", "<f2")])
TQ2_0 = np.dtype([("codes", "u1", (2, 32)), ("scale", "<f2")])
MXFP4 = np.dtype([("exponent", "u1"), ("codes", "u1", 16)])

_E2M1_TWICE = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])
"""Twice what a 4-bit float stands for, so that it is whole."""


def read_tq1_0(raw: Bytes) -> QuantizedMatrix:
    """Five ternary digits in a byte, as the leading ones of a fraction; of the last four bytes only four."""
    blocks = raw.view(TQ1_0)
    parts = [_digits(blocks["fives"], 5), _digits(blocks["short_fives"], 5), _digits(blocks["fours"], 4)]
    return _ternary(np.concatenate(parts, axis=-1), blocks["scale"])


def read_tq2_0(raw: Bytes) -> QuantizedMatrix:
    """Ternary digits of two bits: the lowest of 32 bytes in order, then the next, and so on."""
    blocks = raw.view(TQ2_0)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    return _ternary(blocks["codes"][..., None, :] >> shifts & 0x3, blocks["scale"])


def read_mxfp4(raw: Bytes) -> QuantizedMatrix:
    """4-bit floats with a power of two for each 32. Source: OCP Microscaling Formats, version 1.0."""
    blocks = raw.view(MXFP4)
    codes = np.stack([blocks["codes"] & 0xF, blocks["codes"] >> 4], axis=-2)
    scales = np.ldexp(np.float32(1), blocks["exponent"].astype(np.int32) - 128)
    codebook = (_E2M1_TWICE + 128).astype(np.uint8)
    return QuantizedMatrix(codes.reshape(len(raw), blocks.shape[1] * 32), scales, None, 128, 4, 32, codebook)


def _digits(packed: Bytes, count: int) -> Bytes:
    """The first digits of each byte / 256 in base 3, those of one place together: [.., count * bytes]."""
    powers = 3 ** np.arange(count, dtype=np.uint8)
    rest = packed[..., None, :] * powers.astype(np.uint8)[:, None]
    digits: Bytes = (rest.astype(np.uint16) * 3 >> 8).astype(np.uint8)
    return digits.reshape(*packed.shape[:-1], count * packed.shape[-1])


def _ternary(codes: NDArray[np.integer], halves: NDArray[np.float16]) -> QuantizedMatrix:
    """-1, 0 and 1 times one scale a block of 256."""
    scales = np.repeat(halves.astype(np.float32), 8, axis=-1)
    rows, num_blocks = halves.shape
    return QuantizedMatrix(codes.astype(np.uint8).reshape(rows, num_blocks * 256), scales, None, 1, 4, 32)
