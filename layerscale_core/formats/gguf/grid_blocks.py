"""ggml's blocks whose codes stand for small groups of weights: magnitudes from a table, with signs beside them.

Each function is as those of ``blocks``. A weight becomes a 4-bit code of its own: three bits of magnitude below a sign.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscale_core.formats.gguf.grids import IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID, Bytes
from layerscale_core.models import QuantizedMatrix

IQ2_XXS = np.dtype([("scale", "<f2"), ("groups", [("codes", "u1", 4), ("signs", "<u4")], 8)])
IQ3_XXS = np.dtype([("scale", "<f2"), ("codes", "u1", 64), ("signs", "<u4", 8)])
IQ3_S = np.dtype([("scale", "<f2"), ("codes", "u1", 64), ("high", "u1", 8), ("signs", "u1", 32), ("factors", "u1", 4)])

_IQ2_XXS_MAGNITUDES = (8, 25, 43)
_IQ3_XXS_MAGNITUDES = (4, 12, 20, 28, 36, 44, 52, 62)
_IQ3_S_MAGNITUDES = (1, 3, 5, 7, 9, 11, 13, 15)


def read_iq2_xxs(raw: Bytes) -> QuantizedMatrix:
    """For each 32 weights four codes of eight magnitudes, and a word with their signs and a 4-bit factor."""
    blocks = raw.view(IQ2_XXS)
    words = blocks["groups"]["signs"]
    scales = _halves(blocks["scale"]) * ((words >> 28).astype(np.float32) + np.float32(0.5)) * np.float32(0.25)
    return _matrix(IQ2_XXS_GRID[blocks["groups"]["codes"]], _signs(words), scales, _IQ2_XXS_MAGNITUDES)


def read_iq3_xxs(raw: Bytes) -> QuantizedMatrix:
    """A code for four magnitudes, and for each 32 weights a word with their signs and a 4-bit factor."""
    blocks = raw.view(IQ3_XXS)
    words = blocks["signs"]
    scales = _halves(blocks["scale"]) * ((words >> 28).astype(np.float32) + np.float32(0.5)) * np.float32(0.5)
    return _matrix(IQ3_XXS_GRID[blocks["codes"]], _signs(words), scales, _IQ3_XXS_MAGNITUDES)


def read_iq3_s(raw: Bytes) -> QuantizedMatrix:
    """A 9-bit code for four magnitudes, the ninth bits together; a bit of sign a weight; 4-bit factors."""
    blocks = raw.view(IQ3_S)
    codes = blocks["codes"] | _bits(blocks["high"]).reshape(blocks["codes"].shape).astype(np.uint16) << 8
    factors = np.stack([blocks["factors"] & 0xF, blocks["factors"] >> 4], axis=-1).reshape(*blocks.shape, 8)
    scales = _halves(blocks["scale"]) * (1 + 2 * factors).astype(np.float32)
    return _matrix(IQ3_S_GRID[codes], _bits(blocks["signs"]), scales, _IQ3_S_MAGNITUDES)


def _matrix(magnitudes: Bytes, signs: Bytes, scales: NDArray[np.float32], values: tuple[int, ...]) -> QuantizedMatrix:
    """Of the indices of magnitudes and the signs of every weight, and scales [rows, blocks, 8]."""
    rows = len(scales)
    codebook = np.full((2, 8), 128, np.uint8)
    codebook[0, : len(values)] += np.array(values, np.uint8)
    codebook[1, : len(values)] -= np.array(values, np.uint8)
    num_cols = scales.shape[1] * 256
    codes = signs.reshape(rows, num_cols)
    codes <<= 3
    codes |= magnitudes.reshape(rows, num_cols)
    return QuantizedMatrix(codes, scales.reshape(rows, num_cols // 32), None, 128, 4, 32, codebook.reshape(-1))


def _halves(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    """One number a block, to go with its eight groups."""
    return halves.astype(np.float32)[..., None]


def _bits(values: Bytes) -> Bytes:
    """Bits in order, the lowest of each byte first."""
    return np.unpackbits(values[..., None], axis=-1, bitorder="little")


def _signs(words: NDArray[np.uint32]) -> Bytes:
    """From four times seven bits: an eighth, the last, makes the number of negative weights even."""
    sevens = words[..., None] >> np.arange(0, 28, 7, dtype=np.uint32) & 0x7F
    signs = _bits(sevens.astype(np.uint8))
    signs[..., 7] = signs.sum(axis=-1) & 1
    return signs
