"""What the KV cache holds of a key or a value at each precision, in plain numpy.

A codec turns vectors [.., head_dim] into bytes [.., num_bytes] and back, each vector for itself, so that a sequence can
be cut, extended or shared anywhere. Codes are taken of the rotated vector: rotation spreads outliers over all elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from layerscale_core.reference.arrays import Bytes, Floats
from layerscale_core.reference.hadamard import rotate, rotate_back
from layerscale_core.specs.executor import KVType


class KVCodec(Protocol):
    """One way to store vectors of one width."""

    @property
    def num_bytes(self) -> int:
        """Bytes of one vector."""
        ...

    def encode(self, vectors: Floats) -> Bytes:
        """[.., head_dim] to [.., num_bytes]."""
        ...

    def decode(self, content: Bytes) -> Floats:
        """[.., num_bytes] to [.., head_dim]."""
        ...


def key_codec(kv_type: KVType, head_dim: int) -> KVCodec:
    """How keys are stored."""
    return _codec(kv_type, head_dim, kv_type.num_key_groups(head_dim))


def value_codec(kv_type: KVType, head_dim: int) -> KVCodec:
    """How values are stored."""
    return _codec(kv_type, head_dim, kv_type.num_value_groups(head_dim))


def _codec(kv_type: KVType, head_dim: int, num_groups: int) -> KVCodec:
    match kv_type:
        case KVType.FP16:
            return FloatCodec(np.dtype(np.float16), head_dim)
        case KVType.INT8:
            return Int8Codec(head_dim)
        case KVType.INT4:
            return Int4Codec(head_dim, num_groups)


@dataclass(frozen=True, slots=True)
class FloatCodec:
    """Floats of a smaller type."""

    dtype: np.dtype[np.floating]
    head_dim: int

    @property
    def num_bytes(self) -> int:
        """An element after the other."""
        return self.dtype.itemsize * self.head_dim

    def encode(self, vectors: Floats) -> Bytes:
        """Round to the type."""
        return np.ascontiguousarray(vectors.astype(self.dtype)).view(np.uint8)

    def decode(self, content: Bytes) -> Floats:
        """Widen."""
        return np.ascontiguousarray(content).view(self.dtype).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Int8Codec:
    """``scale * code``, codes from -127 to 127; the codes, then the scale."""

    head_dim: int

    @property
    def num_bytes(self) -> int:
        """Codes in whole words, and a float16."""
        return _in_words(self.head_dim) + 2

    def encode(self, vectors: Floats) -> Bytes:
        """Rotate and round."""
        rotated = rotate(vectors)
        scales = (np.abs(rotated).max(axis=-1, keepdims=True) / np.float32(127)).astype(np.float16)
        codes = _codes(rotated, np.zeros_like(scales), scales, -127, 127).astype(np.int8).view(np.uint8)
        return np.concatenate([_padded(codes), scales.view(np.uint8)], axis=-1)

    def decode(self, content: Bytes) -> Floats:
        """Scale and rotate back."""
        scales = np.ascontiguousarray(content[..., -2:]).view(np.float16).astype(np.float32)
        codes = np.ascontiguousarray(content[..., : self.head_dim]).view(np.int8)
        return rotate_back(scales * codes.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Int4Codec:
    """``minimum + scale * code`` in groups, codes from 0 to 15; the codes, two a byte, then scales, then minima."""

    head_dim: int
    num_groups: int

    @property
    def num_bytes(self) -> int:
        """Codes in whole words, and two float16 a group."""
        return self._code_bytes + 4 * self.num_groups

    @property
    def _groups(self) -> tuple[int, int]:
        return self.num_groups, self.head_dim // self.num_groups

    @property
    def _code_bytes(self) -> int:
        return _in_words(-(-self.head_dim // 2))

    def encode(self, vectors: Floats) -> Bytes:
        """Rotate and round."""
        groups = rotate(vectors).reshape(*vectors.shape[:-1], *self._groups)
        minima = groups.min(axis=-1, keepdims=True).astype(np.float16)
        spreads = groups.max(axis=-1, keepdims=True) - minima.astype(np.float32)
        scales = (spreads / np.float32(15)).astype(np.float16)
        codes = _padded(_codes(groups, minima, scales, 0, 15).astype(np.uint8).reshape(vectors.shape), multiple=8)
        packed = codes[..., 0::2] | codes[..., 1::2] << 4
        return np.concatenate([packed, scales[..., 0].view(np.uint8), minima[..., 0].view(np.uint8)], axis=-1)

    def decode(self, content: Bytes) -> Floats:
        """Scale, shift and rotate back."""
        packed = content[..., : self._code_bytes]
        pairs = np.stack([packed & 15, packed >> 4], axis=-1)
        codes = pairs.reshape(*packed.shape[:-1], 2 * self._code_bytes)[..., : self.head_dim].astype(np.float32)
        groups = codes.reshape(*codes.shape[:-1], *self._groups)
        halves = np.ascontiguousarray(content[..., self._code_bytes :]).view(np.float16).astype(np.float32)
        scales, minima = halves[..., : self.num_groups, None], halves[..., self.num_groups :, None]
        return rotate_back((minima + scales * groups).reshape(codes.shape))


def _codes(x: Floats, minima: NDArray[np.float16], scales: NDArray[np.float16], lowest: int, highest: int) -> Floats:
    """The nearest codes, by scales as they are stored, whose own rounding then costs nothing.

    Values that are not finite have a scale that is not, which keeps them from passing for numbers; their codes are 0.
    """
    usable = np.where(scales > 0, scales, np.inf).astype(np.float32)
    nearest = np.rint((x - minima.astype(np.float32)) / usable)
    codes: Floats = np.clip(np.nan_to_num(nearest, nan=0, posinf=0, neginf=0), lowest, highest)
    return codes


def _in_words(num_bytes: int) -> int:
    return -(-num_bytes // 4) * 4


def _padded(codes: Bytes, multiple: int = 4) -> Bytes:
    missing = -codes.shape[-1] % multiple
    return np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, missing)])
