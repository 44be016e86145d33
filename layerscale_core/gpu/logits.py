"""Logits that stay on the device until a row is asked for, and memory that results come to the host in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class HostMemory:
    """Memory of the host, as large as the largest that was asked for, which the device writes by itself."""

    def __init__(self, device: torch.device) -> None:
        self._is_pinned = device.type == "cuda"
        self._memory = torch.empty(0)

    def take(self, shape: Sequence[int]) -> Tensor:
        """Float32, of a shape; the same memory every time."""
        size = int(np.prod(shape))
        if self._memory.numel() < size:
            self._memory = torch.empty(size, pin_memory=self._is_pinned)
        return self._memory[:size].view(*shape)


@dataclass(frozen=True, slots=True)
class TorchLogits:
    """``layerscale_core.specs.DeviceLogits``.

    Attributes:
        values: [num_logits, vocab_size], on the device.
        host: float32, of the same shape: where a row goes that is asked for.
        likeliest: see ``DeviceLogits.likeliest``.
    """

    values: Tensor
    host: Tensor
    likeliest: list[int | None]

    @property
    def shape(self) -> tuple[int, ...]:
        """[num_logits, vocab_size]."""
        return tuple(self.values.shape)

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, rows: int) -> NDArray[np.float32]: ...

    @overload
    def __getitem__(self, rows: slice) -> TorchLogits: ...

    def __getitem__(self, rows: int | slice) -> NDArray[np.float32] | TorchLogits:
        if isinstance(rows, slice):
            return TorchLogits(self.values[rows], self.host[rows], self.likeliest[rows])
        row: NDArray[np.float32] = self.host[rows].copy_(self.values[rows]).numpy()
        return row

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, /, *, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.host.copy_(self.values).numpy(), dtype, copy=copy)

    def copy(self) -> NDArray[np.float32]:
        """All rows, to keep."""
        return np.array(self)
