"""ggml's blocks whose codes stand for small groups of weights: choices from a table, with signs beside them.

Each function is as those of ``blocks``. A weight becomes a code of its own. Where 32 weights share a scale its 4 bits
index the few values that there are; where 16 do, it is the value itself, in 6 or 8 bits.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from layerscale_core.formats.gguf.grids import (
    IQ1_GRID,
    IQ2_S_GRID,
    IQ2_XS_GRID,
    IQ2_XXS_GRID,
    IQ3_S_GRID,
    IQ3_XXS_GRID,
    Bytes,
)
from layerscale_core.models import QuantizedMatrix

Values = NDArray[np.int64]
Word = TypeVar("Word", np.uint8, np.uint16, np.uint32)

IQ1_S = np.dtype([("scale", "<f2"), ("codes", "u1", 32), ("words", "<u2", 8)])
IQ1_M = np.dtype([("codes", "u1", 32), ("high", "u1", 16), ("factors", "<u2", 4)])
IQ2_XXS = np.dtype([("scale", "<f2"), ("groups", [("codes", "u1", 4), ("signs", "<u4")], 8)])
IQ2_XS = np.dtype([("scale", "<f2"), ("codes", "<u2", 32), ("factors", "u1", 8)])
IQ2_S = np.dtype([("scale", "<f2"), ("codes", "u1", 32), ("signs", "u1", 32), ("high", "u1", 8), ("factors", "u1", 8)])
IQ3_XXS = np.dtype([("scale", "<f2"), ("codes", "u1", 64), ("signs", "<u4", 8)])
IQ3_S = np.dtype([("scale", "<f2"), ("codes", "u1", 64), ("high", "u1", 8), ("signs", "u1", 32), ("factors", "u1", 4)])

_IQ1_EIGHTHS = np.array([[-7, 1, 9], [-9, -1, 7]])
"""-1, 0 and 1 with an eighth added or subtracted, in eighths."""
_IQ2_VALUES = np.outer([1, -1], [8, 25, 43])
_IQ3_XXS_VALUES = np.outer([1, -1], [4, 12, 20, 28, 36, 44, 52, 62])
_IQ3_S_VALUES = np.outer([1, -1], [1, 3, 5, 7, 9, 11, 13, 15])


def read_iq1_s(raw: Bytes) -> QuantizedMatrix:
    """11-bit codes of eight; for each 32 weights a word: four times three upper bits, a factor, the eighth's sign."""
    blocks = raw.view(IQ1_S)
    words = blocks["words"]
    choices = IQ1_GRID[_with_high(blocks["codes"], _fields(words, (0, 3, 6, 9), 0x7))]
    below = np.repeat((words >> 15).astype(np.uint8), 32, axis=-1)
    return _matrix(choices, below, _iq1_scales(blocks["scale"], words >> 12 & 0x7), _IQ1_EIGHTHS)


def read_iq1_m(raw: Bytes) -> QuantizedMatrix:
    """11-bit codes of eight, each with its eighth's sign; 3-bit factors for each 16, above them the scale in parts."""
    blocks = raw.view(IQ1_M)
    high, factors = _nibbles(blocks["high"]), blocks["factors"]
    parts = factors >> 12 << np.arange(0, 16, 4, dtype=np.uint16)
    halves = np.bitwise_or.reduce(parts, axis=-1).astype("<u2").view("<f2")
    choices = IQ1_GRID[_with_high(blocks["codes"], high & np.uint8(0x7))]
    below = np.repeat(high >> 3, 8, axis=-1)
    return _matrix(choices, below, _iq1_scales(halves, _fields(factors, (0, 3, 6, 9), 0x7)), _IQ1_EIGHTHS)


def read_iq2_xxs(raw: Bytes) -> QuantizedMatrix:
    """For each 32 weights four codes of eight magnitudes, and a word with their signs and a 4-bit factor."""
    blocks = raw.view(IQ2_XXS)
    words = blocks["groups"]["signs"]
    scales = _iq2_scales(blocks["scale"], words >> 28)
    return _matrix(IQ2_XXS_GRID[blocks["groups"]["codes"]], _word_signs(words), scales, _IQ2_VALUES)


def read_iq2_xs(raw: Bytes) -> QuantizedMatrix:
    """For each eight weights nine bits of a code and seven of signs; 4-bit factors for each 16."""
    blocks = raw.view(IQ2_XS)
    codes = blocks["codes"]
    scales = _iq2_scales(blocks["scale"], _nibbles(blocks["factors"]))
    return _matrix(IQ2_XS_GRID[codes & 0x1FF], _even_signs(codes >> 9), scales, _IQ2_VALUES)


def read_iq2_s(raw: Bytes) -> QuantizedMatrix:
    """10-bit codes of eight, the upper two bits together; a bit of sign a weight; 4-bit factors for each 16."""
    blocks = raw.view(IQ2_S)
    codes = _with_high(blocks["codes"], _fields(blocks["high"], (0, 2, 4, 6), 0x3))
    scales = _iq2_scales(blocks["scale"], _nibbles(blocks["factors"]))
    return _matrix(IQ2_S_GRID[codes], _bits(blocks["signs"]), scales, _IQ2_VALUES)


def read_iq3_xxs(raw: Bytes) -> QuantizedMatrix:
    """A code for four magnitudes, and for each 32 weights a word with their signs and a 4-bit factor."""
    blocks = raw.view(IQ3_XXS)
    words = blocks["signs"]
    scales = _halves(blocks["scale"]) * ((words >> 28).astype(np.float32) + np.float32(0.5)) * np.float32(0.5)
    return _matrix(IQ3_XXS_GRID[blocks["codes"]], _word_signs(words), scales, _IQ3_XXS_VALUES)


def read_iq3_s(raw: Bytes) -> QuantizedMatrix:
    """A 9-bit code for four magnitudes, the ninth bits together; a bit of sign a weight; 4-bit factors."""
    blocks = raw.view(IQ3_S)
    codes = _with_high(blocks["codes"], _bits(blocks["high"]))
    scales = _halves(blocks["scale"]) * (1 + 2 * _nibbles(blocks["factors"])).astype(np.float32)
    return _matrix(IQ3_S_GRID[codes], _bits(blocks["signs"]), scales, _IQ3_S_VALUES)


def _matrix(choices: Bytes, signs: Bytes, scales: NDArray[np.float32], values: Values) -> QuantizedMatrix:
    """Of ``values[sign, choice]`` for every weight, and scales [rows, blocks, groups of a block]."""
    rows, num_blocks, num_groups = scales.shape
    num_cols, group_size = num_blocks * 256, 256 // num_groups
    codes = signs.reshape(rows, num_cols)
    codes *= np.uint8(values.shape[1])
    codes += choices.reshape(rows, num_cols)
    scales = scales.reshape(rows, num_blocks * num_groups)
    if group_size == 32:
        codebook = np.full(16, 128, np.uint8)
        codebook[: values.size] = values.reshape(-1) + 128
        return QuantizedMatrix(codes, scales, None, 128, 4, 32, codebook)
    bits = 6 if np.abs(values).max() < 32 else 8
    zero = 2 ** (bits - 1)
    return QuantizedMatrix((values.reshape(-1) + zero).astype(np.uint8)[codes], scales, None, zero, bits, group_size)


def _iq1_scales(halves: NDArray[np.float16], factors: NDArray[np.integer]) -> NDArray[np.float32]:
    """What an eighth is worth."""
    return _halves(halves) * (1 + 2 * factors).astype(np.float32) * np.float32(0.125)


def _iq2_scales(halves: NDArray[np.float16], factors: NDArray[np.integer]) -> NDArray[np.float32]:
    return _halves(halves) * (factors.astype(np.float32) + np.float32(0.5)) * np.float32(0.25)


def _halves(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    """One number a block, to go with its groups."""
    return halves.astype(np.float32)[..., None]


def _with_high(codes: Bytes, high: NDArray[np.unsignedinteger]) -> NDArray[np.uint16]:
    """Codes with the bits that stand apart above their eight."""
    wide = high.reshape(codes.shape).astype(np.uint16)
    wide <<= 8
    wide |= codes
    return wide


def _fields(words: NDArray[Word], shifts: tuple[int, ...], mask: int) -> NDArray[Word]:
    """Fields of each word, one after the other: [.., words] to [.., words * fields]."""
    parts = words[..., None] >> np.array(shifts, words.dtype)
    parts &= words.dtype.type(mask)
    return parts.reshape(*words.shape[:-1], words.shape[-1] * len(shifts))


def _nibbles(pairs: Bytes) -> Bytes:
    return _fields(pairs, (0, 4), 0xF)


def _bits(values: Bytes) -> Bytes:
    """Bits in order, the lowest of each byte first."""
    return np.unpackbits(values[..., None], axis=-1, bitorder="little")


def _word_signs(words: NDArray[np.uint32]) -> Bytes:
    return _even_signs(_fields(words, (0, 7, 14, 21), 0x7F))


def _even_signs(sevens: NDArray[np.integer]) -> Bytes:
    """Of seven bits each: an eighth, the last, makes the number of negative weights even."""
    signs = _bits(sevens.astype(np.uint8))
    signs[..., 7] = signs.sum(axis=-1) & 1
    return signs
