"""Logits of the native kernels, whose likeliest tokens were found while they were in the processor's caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class NativeLogits:
    """``layerscale_core.specs.DeviceLogits``.

    Attributes:
        values: [num_logits, vocab_size].
        likeliest: see ``DeviceLogits.likeliest``.
    """

    values: NDArray[np.float32]
    likeliest: list[int | None]

    @property
    def shape(self) -> tuple[int, ...]:
        """[num_logits, vocab_size]."""
        return self.values.shape

    def __getitem__(self, row: int) -> NDArray[np.float32]:
        return self.values[row]  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, /, *, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype, copy=copy)

    def copy(self) -> NDArray[np.float32]:
        """All rows, to keep."""
        return self.values.copy()
