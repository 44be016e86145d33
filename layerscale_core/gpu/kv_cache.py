"""The paged KV cache on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from layerscale_core.gpu.kernels.kv_cache import rotate_heads_kernel, shift_keys_kernel, store_kernel
from layerscale_core.gpu.launch import ceil_div, launch, next_power_of_two
from layerscale_core.gpu.rope import DeviceRope
from layerscale_core.gpu.tuning import Launch
from layerscale_core.reference.hadamard import rotate
from layerscale_core.specs.executor import KVLayout, KVType

_BITS = {KVType.FP16: 16, KVType.INT8: 8, KVType.INT4: 4}
_TOKENS = 16
"""Tokens that a program of the kernels here takes at a time."""
_LAUNCH = Launch(num_warps=8, num_stages=1)


class Pages(NamedTuple):
    """Keys or values, all layers or one, as kernels take them; [.., num_pages, num_kv_heads, page_size, n].

    Scales lie apart from codes, and a head's vectors of one page beside each other, so that both are read in whole
    lines.

    Attributes:
        codes: floats, or uint8: signed codes, or two 4-bit codes a byte, the first in the low half.
        scales, mins: float16, one a group; None where there are none.
    """

    codes: Tensor
    scales: Tensor | None
    mins: Tensor | None

    def layer(self, index: int) -> Pages:
        """One layer's."""
        codes, scales, mins = self
        return Pages(codes[index], None if scales is None else scales[index], None if mins is None else mins[index])


class Rotation(NamedTuple):
    """``reference.kv_codecs.rotate`` as a product: signs and zeros float16 [width, width], times a factor."""

    matrix: Tensor
    factor: float


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers, and how they are stored."""

    layout: KVLayout
    keys: Pages
    values: Pages
    rotation: Rotation | None

    @property
    def width(self) -> int:
        """The head's width up to a power of two: what kernels compute with."""
        return next_power_of_two(self.layout.head_dim)

    @property
    def parts(self) -> list[Tensor]:
        """All tensors [num_layers, num_pages, ..], in the order of their bytes in a page."""
        return [part for pages in (self.keys, self.values) for part in pages if part is not None]

    @property
    def page_bytes(self) -> int:
        """Of a page, all layers."""
        return self.layout.page_size * self.layout.bytes_per_token

    def constants(self) -> dict[str, int]:
        """What kernels are compiled for, of a cache."""
        kv_type, head_dim = self.layout.kv_type, self.layout.head_dim
        return {
            "HEAD_DIM": head_dim,
            "WIDTH": self.width,
            "KV_BITS": _BITS[kv_type],
            "KEY_GROUPS": kv_type.num_key_groups(head_dim),
            "VALUE_GROUPS": kv_type.num_value_groups(head_dim),
        }


def allocate_cache(layout: KVLayout, device: torch.device | str, dtype: torch.dtype = torch.float16) -> KVCache:
    """A zeroed cache.

    Args:
        dtype: what an fp16 cache holds: float16, bfloat16, or float32 for comparing.

    Raises:
        torch.OutOfMemoryError: the device cannot hold it.
    """
    kv_type, head_dim = layout.kv_type, layout.head_dim

    def pages(num_groups: int) -> Pages:
        shape = (layout.num_layers, layout.num_pages, layout.num_kv_heads, layout.page_size)

        def zeros(width: int, part_dtype: torch.dtype) -> Tensor:
            return torch.zeros((*shape, width), dtype=part_dtype, device=device)

        if kv_type is KVType.FP16:
            return Pages(zeros(head_dim, dtype), None, None)
        codes = zeros(ceil_div(_BITS[kv_type] * head_dim, 32) * 4, torch.uint8)
        mins = zeros(num_groups, torch.float16) if kv_type is KVType.INT4 else None
        return Pages(codes, zeros(num_groups, torch.float16), mins)

    rotation = None if kv_type is KVType.FP16 else make_rotation(head_dim, device)
    keys, values = pages(kv_type.num_key_groups(head_dim)), pages(kv_type.num_value_groups(head_dim))
    return KVCache(layout, keys, values, rotation)


def make_rotation(head_dim: int, device: torch.device | str) -> Rotation:
    """The fixed rotation of heads of a width."""
    width, factor = next_power_of_two(head_dim), float(head_dim & -head_dim) ** -0.5
    signs = np.zeros((width, width), np.float16)
    signs[:head_dim, :head_dim] = np.rint(rotate(np.eye(head_dim, dtype=np.float32)) / np.float32(factor))
    return Rotation(torch.tensor(signs).to(device), factor)


def store(key: Tensor, value: Tensor, cache: KVCache, layer: int, slots: Tensor) -> None:
    """Write keys and values [T, num_kv_heads * head_dim] into their slots, in place; nothing for slots below 0."""
    num_tokens, heads = key.shape[0], cache.layout.num_kv_heads
    launch(
        store_kernel, (ceil_div(num_tokens, _TOKENS), heads), _LAUNCH,
        key, value, slots, cache.keys.layer(layer), cache.values.layer(layer), *_rotation(cache), num_tokens, heads,
        cache.layout.page_size, TOKENS=_TOKENS, **cache.constants(),
    )  # fmt: skip


def rotate_heads(x: Tensor, cache: KVCache, out: Tensor) -> Tensor:
    """Rotate queries [T, num_heads * head_dim] as a quantised cache's keys are; returns ``out``, which may be x."""
    assert cache.rotation is not None
    num_vectors = x.numel() // cache.layout.head_dim
    launch(
        rotate_heads_kernel, (ceil_div(num_vectors, _TOKENS),), _LAUNCH,
        x, out, *_rotation(cache), num_vectors, HEAD_DIM=cache.layout.head_dim, WIDTH=cache.width, TOKENS=_TOKENS,
    )  # fmt: skip
    return out


def shift_positions(cache: KVCache, layer: int, page_ids: Tensor, delta: int, rope: DeviceRope) -> None:
    """Rotate one layer's keys of whole pages [num_pages] by ``delta`` positions, in place, with magnitude 1."""
    page_size = cache.layout.page_size
    constants = cache.constants()
    del constants["VALUE_GROUPS"]
    launch(
        shift_keys_kernel, (page_ids.numel(), cache.layout.num_kv_heads, ceil_div(page_size, _TOKENS)), _LAUNCH,
        page_ids, delta, rope.turns, cache.keys.layer(layer), *_rotation(cache), cache.layout.num_kv_heads, page_size,
        ROTARY=rope.rotary_dim, IS_INTERLEAVED=rope.interleaved, TOKENS=_TOKENS, **constants,
    )  # fmt: skip


def copy_pages(cache: KVCache, source_ids: Tensor, target_ids: Tensor) -> None:
    """Copy whole pages, all layers; the lists are disjoint."""
    for part in cache.parts:
        part[:, target_ids] = part[:, source_ids]


def read_pages(cache: KVCache, page_ids: Tensor) -> Tensor:
    """The content of whole pages, all layers: uint8 [num_pages, bytes_per_page], on the device."""
    parts = [part[:, page_ids].transpose(0, 1).flatten(1) for part in cache.parts]
    return torch.cat([part.contiguous().view(torch.uint8) for part in parts], dim=1)


def write_pages(cache: KVCache, page_ids: Tensor, content: Tensor) -> None:
    """Put back what ``read_pages`` gave."""
    sizes = [part[:, 0].numel() * part.element_size() for part in cache.parts]
    assert content.shape == (page_ids.numel(), sum(sizes)), content.shape
    for part, piece in zip(cache.parts, torch.split(content, sizes, dim=1), strict=True):
        pages = piece.contiguous().view(part.dtype).reshape(-1, part.shape[0], *part.shape[2:])
        part[:, page_ids] = pages.transpose(0, 1)


def _rotation(cache: KVCache) -> tuple[Tensor | None, float]:
    return (None, 1.0) if cache.rotation is None else cache.rotation
