"""The paged KV cache in plain torch: what the reference's codecs write, written by any device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from layerscale_core.reference.hadamard import signs
from layerscale_core.specs.executor import KVLayout, KVType


class Codec(Protocol):
    """One way to store vectors of one width; ``layerscale_core.reference.kv_codecs`` says what the bytes mean."""

    def encode(self, vectors: Tensor) -> Tensor:
        """Float32 [.., head_dim] to uint8 [.., num_bytes]."""
        ...

    def decode(self, content: Tensor) -> Tensor:
        """Uint8 [.., num_bytes] to float32 [.., head_dim]."""
        ...


@dataclass(frozen=True, slots=True)
class FloatCodec:
    """Float16."""

    def encode(self, vectors: Tensor) -> Tensor:
        """Round."""
        return vectors.half().contiguous().view(torch.uint8)

    def decode(self, content: Tensor) -> Tensor:
        """Widen."""
        return content.contiguous().view(torch.float16).float()


@dataclass(frozen=True, slots=True)
class Int8Codec:
    """``scale * code``; the codes, then the scale."""

    head_dim: int

    def encode(self, vectors: Tensor) -> Tensor:
        """Rotate and round."""
        rotated = rotate(vectors)
        scales = (rotated.abs().amax(-1, keepdim=True) / 127).half()
        codes = _codes(rotated, torch.zeros_like(scales), scales, -127, 127).to(torch.int8).view(torch.uint8)
        return torch.cat([_padded(codes, 4), scales.view(torch.uint8)], -1)

    def decode(self, content: Tensor) -> Tensor:
        """Scale and rotate back."""
        scales = content[..., -2:].contiguous().view(torch.float16).float()
        return rotate_back(scales * content[..., : self.head_dim].contiguous().view(torch.int8).float())


@dataclass(frozen=True, slots=True)
class Int4Codec:
    """``minimum + scale * code`` in groups; the codes, two a byte, then scales, then minima."""

    head_dim: int
    num_groups: int

    def encode(self, vectors: Tensor) -> Tensor:
        """Rotate and round."""
        groups = rotate(vectors).unflatten(-1, (self.num_groups, -1))
        minima = groups.amin(-1, keepdim=True).half()
        scales = ((groups.amax(-1, keepdim=True) - minima.float()) / 15).half()
        codes = _padded(_codes(groups, minima, scales, 0, 15).to(torch.uint8).flatten(-2), 8)
        packed = codes[..., 0::2] | codes[..., 1::2] << 4
        halves = [part[..., 0].contiguous().view(torch.uint8) for part in (scales, minima)]
        return torch.cat([packed, *halves], -1)

    def decode(self, content: Tensor) -> Tensor:
        """Scale, shift and rotate back."""
        num_code_bytes = content.shape[-1] - 4 * self.num_groups
        packed = content[..., :num_code_bytes]
        codes = torch.stack([packed & 15, packed >> 4], -1).flatten(-2)[..., : self.head_dim].float()
        halves = content[..., num_code_bytes:].contiguous().view(torch.float16).float()[..., None]
        scales, minima = halves[..., : self.num_groups, :], halves[..., self.num_groups :, :]
        return rotate_back((minima + scales * codes.unflatten(-1, (self.num_groups, -1))).flatten(-2))


@dataclass(frozen=True, slots=True)
class PagedKV:
    """Keys and values as their codecs write them: uint8 [num_layers, num_slots, num_kv_heads, num_bytes]."""

    keys: Tensor
    values: Tensor
    key_codec: Codec
    value_codec: Codec
    page_size: int

    @classmethod
    def zeros(cls, layout: KVLayout, device: torch.device) -> PagedKV:
        """A cache in two allocations, which stay where they are as long as it lives."""
        kv_type, head_dim = layout.kv_type, layout.head_dim
        key_codec = codec(kv_type, head_dim, kv_type.num_key_groups(head_dim))
        value_codec = codec(kv_type, head_dim, kv_type.num_value_groups(head_dim))
        shape = (layout.num_layers, layout.num_pages * layout.page_size, layout.num_kv_heads)
        num_key_bytes, num_value_bytes = (
            each.encode(torch.zeros(head_dim)).numel() for each in (key_codec, value_codec)
        )
        keys = torch.zeros((*shape, num_key_bytes), dtype=torch.uint8, device=device)
        values = torch.zeros((*shape, num_value_bytes), dtype=torch.uint8, device=device)
        return cls(keys, values, key_codec, value_codec, layout.page_size)

    def pages(self) -> tuple[Tensor, Tensor]:
        """Views of keys and values [num_layers, num_pages, page_size, num_kv_heads, num_bytes]."""
        return self.keys.unflatten(1, (-1, self.page_size)), self.values.unflatten(1, (-1, self.page_size))


def codec(kv_type: KVType, head_dim: int, num_groups: int) -> Codec:
    """How vectors are stored."""
    match kv_type:
        case KVType.FP16:
            return FloatCodec()
        case KVType.INT8:
            return Int8Codec(head_dim)
        case KVType.INT4:
            return Int4Codec(head_dim, num_groups)


def rotate(vectors: Tensor) -> Tensor:
    """The reference's fixed rotation: signs, then a Walsh-Hadamard transform (arXiv:2404.00456)."""
    return _hadamard(vectors * _signs(vectors))


def rotate_back(vectors: Tensor) -> Tensor:
    """The inverse of ``rotate``."""
    return _hadamard(vectors) * _signs(vectors)


def _hadamard(vectors: Tensor) -> Tensor:
    head_dim = vectors.shape[-1]
    block = head_dim & -head_dim
    width = 1
    while width < block:
        first, second = vectors.unflatten(-1, (-1, 2, width)).unbind(-2)
        vectors = torch.stack([first + second, first - second], -2).flatten(-3)
        width *= 2
    scaled: Tensor = vectors * block**-0.5
    return scaled


def _signs(vectors: Tensor) -> Tensor:
    return torch.from_numpy(signs(vectors.shape[-1])).to(vectors.device)


def _codes(x: Tensor, minima: Tensor, scales: Tensor, lowest: int, highest: int) -> Tensor:
    """The nearest codes by scales as they are stored; 0 where values are not finite, whose scale then is not either."""
    usable = scales.float().where(scales > 0, math.inf)
    return ((x - minima.float()) / usable).round().nan_to_num(0, 0, 0).clamp(lowest, highest)


def _padded(codes: Tensor, multiple: int) -> Tensor:
    return torch.nn.functional.pad(codes, (0, -codes.shape[-1] % multiple))
