"""Logits that stay on the device until a row is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


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

    def __getitem__(self, row: int) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self.host[row].copy_(self.values[row]).numpy()
        return values

    def __array__(self, dtype: Any = None, /, *, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.host.copy_(self.values).numpy(), dtype, copy=copy)

    def copy(self) -> NDArray[np.float32]:
        """All rows, to keep."""
        return np.array(self)
