"""The way between host and device: arrays that cross in one copy, and memory of the host that the device can write."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT = 16
"""Bytes. Kernels are compiled for addresses that 16 divides, and once more for others."""

Form = tuple[torch.dtype, tuple[int, ...]]
"""An array's type and shape."""


def packed_bytes(forms: Sequence[Form]) -> list[int]:
    """What each array takes of memory in which they lie one after the other."""
    return [-(-dtype.itemsize * prod(shape) // _ALIGNMENT) * _ALIGNMENT for dtype, shape in forms]


def unpacked(memory: Tensor, forms: Sequence[Form]) -> list[Tensor]:
    """Views of the arrays in memory, uint8 of ``sum(packed_bytes(forms))``."""
    parts = memory.split(packed_bytes(forms))
    return [
        part[: dtype.itemsize * prod(shape)].view(dtype).view(shape)
        for part, (dtype, shape) in zip(parts, forms, strict=True)
    ]


def host_memory(num_bytes: int, device: torch.device) -> Tensor:
    """Zeroed bytes of the host, which a device reads and writes by itself."""
    return torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")


def to_device(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Bring arrays of any types to a device in one copy, for which nothing waits."""
    tensors = [torch.from_numpy(array) for array in arrays]
    forms: list[Form] = [(tensor.dtype, tuple(tensor.shape)) for tensor in tensors]
    # Torch gives pinned memory away again once the copies from it are done, and no sooner.
    host = host_memory(sum(packed_bytes(forms)), device)
    for tensor, place in zip(tensors, unpacked(host, forms), strict=True):
        place.copy_(tensor)
    return unpacked(host.to(device, non_blocking=True), forms)


class Staging:
    """Memory of the host that results come to, as large as the largest so far."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory = torch.empty(0, dtype=torch.uint8)

    def take(self, shape: Sequence[int]) -> Tensor:
        """Float32, of a shape; the same memory every time."""
        num_bytes = torch.float32.itemsize * prod(shape)
        if self._memory.numel() < num_bytes:
            self._memory = host_memory(num_bytes, self._device)
        return self._memory[:num_bytes].view(torch.float32).view(*shape)
