"""ggml's quantised blocks, read into the internal layouts.

A block holds 32 or 256 consecutive weights of a row. Each function takes raw rows, uint8 [rows, bytes of a row], and
returns a matrix whose ``dequantize()`` is bit for bit what ggml's own float32 formula gives.

Codes are moved, never computed with: whole runs of them are copied as opaque items, which numpy does an order of
magnitude faster than stepping through the many short rows of a block.

Source: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h (layouts) and ggml-quants.c (order of the codes).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from layerscale_core.models import DenseMatrix, QuantizedMatrix

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Item = TypeVar("Item", bound=np.generic)

Q4_0 = np.dtype([("scale", "<f2"), ("codes", "V16")])
Q4_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("codes", "V16")])
Q5_0 = np.dtype([("scale", "<f2"), ("high", "V4"), ("codes", "V16")])
Q5_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("high", "V4"), ("codes", "V16")])
Q8_0 = np.dtype([("scale", "<f2"), ("codes", "V32")])
Q2_K = np.dtype([("factors", "V16"), ("codes", "V64"), ("scale", "<f2"), ("minimum", "<f2")])
Q3_K = np.dtype([("high", "V32"), ("codes", "V64"), ("factors", "V12"), ("scale", "<f2")])
Q4_K = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("factors", "V12"), ("codes", "V128")])
Q5_K = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("factors", "V12"), ("high", "V32"), ("codes", "V128")])
Q6_K = np.dtype([("codes", "V128"), ("high", "V64"), ("factors", "V16"), ("scale", "<f2")])
IQ4_NL = np.dtype([("scale", "<f2"), ("codes", "V16")])
IQ4_XS = np.dtype([("scale", "<f2"), ("high_factors", "<u2"), ("low_factors", "V4"), ("codes", "V128")])

IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
"""What a 4-bit code of the IQ4 types stands for."""


def read_f32(raw: Bytes) -> DenseMatrix:
    """32-bit floats."""
    return DenseMatrix(raw.view("<f4").copy())


def read_f16(raw: Bytes) -> DenseMatrix:
    """16-bit floats."""
    return DenseMatrix(raw.view("<f2").copy())


def read_bf16(raw: Bytes) -> DenseMatrix:
    """The upper halves of 32-bit floats, as bit patterns."""
    return DenseMatrix(raw.view("<u2").copy())


def read_q4_0(raw: Bytes) -> QuantizedMatrix:
    """4 bits around 8."""
    blocks = raw.view(Q4_0)
    return QuantizedMatrix(_unpack(blocks["codes"], 4, 16), _floats(blocks["scale"]), None, 8, 4, 32)


def read_q4_1(raw: Bytes) -> QuantizedMatrix:
    """4 bits above a minimum."""
    blocks = raw.view(Q4_1)
    codes = _unpack(blocks["codes"], 4, 16)
    return QuantizedMatrix(codes, _floats(blocks["scale"]), _floats(blocks["minimum"]), 0, 4, 32)


def read_q5_0(raw: Bytes) -> QuantizedMatrix:
    """5 bits around 16; the fifth bits stand together."""
    blocks = raw.view(Q5_0)
    codes = _join(_unpack(blocks["codes"], 4, 16), _single_bits(blocks["high"]), 4)
    return QuantizedMatrix(codes, _floats(blocks["scale"]), None, 16, 6, 32)


def read_q5_1(raw: Bytes) -> QuantizedMatrix:
    """5 bits above a minimum."""
    blocks = raw.view(Q5_1)
    codes = _join(_unpack(blocks["codes"], 4, 16), _single_bits(blocks["high"]), 4)
    return QuantizedMatrix(codes, _floats(blocks["scale"]), _floats(blocks["minimum"]), 0, 6, 32)


def read_q8_0(raw: Bytes) -> QuantizedMatrix:
    """Signed bytes; flipping the sign bit adds the 128 that makes them codes."""
    blocks = raw.view(Q8_0)
    codes = _bytes(blocks["codes"])
    codes ^= 0x80
    return QuantizedMatrix(_rows(codes), _floats(blocks["scale"]), None, 128, 8, 32)


def read_iq4_nl(raw: Bytes) -> QuantizedMatrix:
    """4 bits that index a table."""
    blocks = raw.view(IQ4_NL)
    return _iq4_matrix(blocks["codes"], _floats(blocks["scale"]))


def read_iq4_xs(raw: Bytes) -> QuantizedMatrix:
    """As IQ4_NL, with a signed 6-bit factor for each 32 weights: four bits in one place, two in another."""
    blocks = raw.view(IQ4_XS)
    pairs = _bytes(blocks["low_factors"])
    low = np.stack([pairs & 0xF, pairs >> 4], axis=-1).reshape(*blocks.shape, 8)
    high = blocks["high_factors"][..., None] >> np.arange(0, 16, 2, dtype=np.uint16)
    factors = _join(low, (high & 0x3).astype(np.uint8), 4).view(np.int8) - np.int8(32)
    return _iq4_matrix(blocks["codes"], _scaled(blocks["scale"], factors))


def read_q2_k(raw: Bytes) -> QuantizedMatrix:
    """2 bits above a minimum; a byte for each 16 weights: 4 bits of its scale, 4 of its minimum."""
    blocks = raw.view(Q2_K)
    factors = _bytes(blocks["factors"])
    scales, mins = _scaled(blocks["scale"], factors & 0xF), _scaled(-blocks["minimum"], factors >> 4)
    return QuantizedMatrix(_unpack(blocks["codes"], 2, 32), scales, mins, 0, 4, 16)


def read_q3_k(raw: Bytes) -> QuantizedMatrix:
    """2 bits, and a third that stands apart, around 4; a signed 6-bit factor for each 16 weights."""
    blocks = raw.view(Q3_K)
    codes = _join(_unpack(blocks["codes"], 2, 32), _unpack(blocks["high"], 1, 32), 2)
    # Bytes 0 to 7 hold the lower four bits of factors 0 to 7, then of 8 to 15; bytes 8 to 11 the upper two of 0 to 3, …
    factors = _bytes(blocks["factors"])
    low, high = factors[..., :8], factors[..., 8:]
    low = np.concatenate([low & 0xF, low >> 4], axis=-1)
    high = np.concatenate([(high >> shift) & 0x3 for shift in (0, 2, 4, 6)], axis=-1)
    signed = _join(low, high, 4).view(np.int8) - np.int8(32)
    return QuantizedMatrix(codes, _scaled(blocks["scale"], signed), None, 4, 4, 16)


def read_q4_k(raw: Bytes) -> QuantizedMatrix:
    """4 bits above a minimum; 6-bit factors of scale and minimum for each 32 weights."""
    blocks = raw.view(Q4_K)
    scales, mins = _six_bit_factors(blocks)
    codes = _unpack(blocks["codes"], 4, 32)
    return QuantizedMatrix(codes, scales, mins, 0, 4, 32)


def read_q5_k(raw: Bytes) -> QuantizedMatrix:
    """As Q4_K, with a fifth bit that stands apart."""
    blocks = raw.view(Q5_K)
    scales, mins = _six_bit_factors(blocks)
    codes = _join(_unpack(blocks["codes"], 4, 32), _unpack(blocks["high"], 1, 32), 4)
    return QuantizedMatrix(codes, scales, mins, 0, 6, 32)


def read_q6_k(raw: Bytes) -> QuantizedMatrix:
    """4 bits, and two that stand apart, around 32; a signed 8-bit factor for each 16 weights."""
    blocks = raw.view(Q6_K)
    codes = _join(_unpack(blocks["codes"], 4, 64), _unpack(blocks["high"], 2, 32), 4)
    factors = _bytes(blocks["factors"]).view(np.int8)
    return QuantizedMatrix(codes, _scaled(blocks["scale"], factors), None, 32, 6, 16)


def _iq4_matrix(codes: NDArray[np.void], scales: Floats) -> QuantizedMatrix:
    codebook = (IQ4_VALUES + 128).astype(np.uint8)
    return QuantizedMatrix(_unpack(codes, 4, 16), scales, None, 128, 4, 32, codebook)


def _bytes(items: NDArray[np.void]) -> Bytes:
    """The bytes of the opaque items of each block: [rows, blocks, item size], fresh."""
    return items.copy().view(np.uint8).reshape(*items.shape, items.dtype.itemsize)


def _rows(parts: NDArray[Item]) -> NDArray[Item]:
    """What stands block by block, as whole rows: [rows, blocks, n] to [rows, blocks * n]."""
    rows, num_blocks, num_parts = parts.shape
    return parts.reshape(rows, num_blocks * num_parts)


def _floats(halves: NDArray[np.float16]) -> Floats:
    return halves.astype(np.float32)


def _unpack(items: NDArray[np.void], bits: int, run: int) -> Bytes:
    """Codes of 1, 2 or 4 bits as bytes: uint8 [rows, codes], fresh.

    Each ``run`` bytes hold in their lowest bits as many codes in order, in the next bits as many that follow, and so
    on.
    """
    packed = _bytes(items)
    num_parts = 8 // bits
    runs = np.empty((packed.size // run, num_parts), dtype=f"V{run}")
    for part in range(num_parts):
        codes = packed >> (part * bits)
        codes &= 2**bits - 1
        runs[:, part] = codes.reshape(-1, run).view(runs.dtype)[:, 0]
    return _rows(runs.view(np.uint8).reshape(*items.shape, items.dtype.itemsize * num_parts))


def _join(low: Bytes, high: Bytes, bits: int) -> Bytes:
    """Put upper bits above the ``bits`` lower ones, in place."""
    high <<= bits
    low |= high
    return low


def _single_bits(items: NDArray[np.void]) -> Bytes:
    """Bits in order, the lowest of the first byte first, as bytes [rows, bits]."""
    return _rows(np.unpackbits(_bytes(items), axis=-1, bitorder="little"))


def _six_bit_factors(blocks: NDArray[np.void]) -> tuple[Floats, Floats]:
    """Scales and minima of the eight groups of each block, from 6-bit factors packed in 12 bytes.

    Bytes 0 to 3 hold the scale's first four factors, 4 to 7 the minimum's. Of the last four, the lower halves stand in
    bytes 8 to 11 (scale, then minimum), the upper two bits in the free bits of bytes 0 to 3 and 4 to 7.
    """
    factors = _bytes(blocks["factors"])
    scale, minimum, low = factors[..., 0:4], factors[..., 4:8], factors[..., 8:12]
    scales = np.concatenate([scale & 0x3F, (low & 0xF) | ((scale >> 2) & 0x30)], axis=-1)
    mins = np.concatenate([minimum & 0x3F, (low >> 4) | ((minimum >> 2) & 0x30)], axis=-1)
    return _scaled(blocks["scale"], scales), _scaled(-blocks["minimum"], mins)


def _scaled(halves: NDArray[np.float16], factors: NDArray[np.integer]) -> Floats:
    """Each block's half-precision number times the factors of its groups: float32 [rows, groups]."""
    scaled = factors.astype(np.float32)
    scaled *= _floats(halves)[..., None]
    return _rows(scaled)
