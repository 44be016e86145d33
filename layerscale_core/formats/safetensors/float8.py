"""Weights in 8-bit floats (e4m3, arXiv:2209.05433) with a scale for each tensor, row or block.

They are held as float16: a product of an 8-bit float and a scale keeps 11 bits there, more than the 8 of bfloat16, and
8-bit codes in groups would round to other values than the file's. It takes twice the file's memory;
``--quantization int8`` takes no more than the file, and rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerscale_core.formats.safetensors.header import FLOATS
from layerscale_core.formats.safetensors.packed import Module, modules
from layerscale_core.formats.safetensors.tensors import FolderTensors
from layerscale_core.models import DenseMatrix

FLOAT8 = "F8_E4M3"

_ELEMENTS_AT_ONCE = 1 << 20
"""Bounds the float32 products beside the halves that are kept."""

_SCALE_PARTS = ("weight_scale_inv", "weight_scale")
"""DeepSeek's and Qwen's name, and everyone else's; both are factors, whatever the first says."""

OF_ACTIVATIONS = tuple(
    f".{name}" for name in ("input_scale", "activation_scale", "output_scale", "q_scale", "k_scale", "v_scale")
)
"""Ends of names of scales for rounding activations and the KV cache, which are computed in more bits here."""


def _e4m3_values() -> NDArray[np.float32]:
    codes = np.arange(128)
    exponents, fractions = codes >> 3, codes & 7
    values = np.where(exponents == 0, fractions * 2.0**-9, (8 + fractions) * 2.0 ** (exponents - 10.0))
    values[127] = np.nan
    return np.concatenate([values, -values]).astype(np.float32)


E4M3_VALUES = _e4m3_values()
"""What each code stands for."""


@dataclass(frozen=True, slots=True)
class Float8Weight:
    """A ``PackedWeight``.

    Attributes:
        block: rows and columns that share a scale.
    """

    module: Module
    shape: tuple[int, int]
    scale_part: str
    block: tuple[int, int]

    @property
    def parts(self) -> tuple[str, ...]:
        """See ``PackedWeight``."""
        return self.module.full("weight"), self.module.full(self.scale_part)

    def rows(self, start: int, stop: int) -> DenseMatrix:
        """See ``PackedWeight``."""
        cols = self.shape[1]
        values = np.empty((stop - start, cols), np.float16)
        if start == stop:
            return DenseMatrix(values)
        codes, scales = self.module.array("weight"), self._scales()
        step = max(1, _ELEMENTS_AT_ONCE // cols)
        for first in range(start, stop, step):
            rows = np.arange(first, min(first + step, stop))
            of_columns = np.repeat(scales[rows // self.block[0]], self.block[1], axis=1)[:, :cols]
            with np.errstate(over="ignore", invalid="ignore"):  # what is no number is found in the logits
                values[first - start : rows[-1] + 1 - start] = E4M3_VALUES[codes[rows]] * of_columns
        return DenseMatrix(values)

    def _scales(self) -> NDArray[np.float32]:
        """One for each block: [blocks of rows, blocks of columns]."""
        rows, cols = self.shape
        return self.module.floats(self.scale_part).reshape(-(-rows // self.block[0]), -(-cols // self.block[1]))


def float8_weight(module: Module, block: tuple[int, int] | None) -> Float8Weight:
    """The weight of a module.

    Args:
        block: rows and columns that share a scale; None: what the number of scales says, one or one a row.

    Raises:
        ModelFileError: scales are missing, or of another shape.
    """
    rows, cols = module.matrix_shape("weight", FLOAT8)
    part = next((part for part in _SCALE_PARTS if module.has(part)), _SCALE_PARTS[-1])
    found = module.shape(part, *FLOATS)
    if found in ((), (1,), (1, 1)):
        block = (rows, cols)
    elif block is None and found in ((rows,), (rows, 1)):
        block = (1, cols)
    elif block is None:
        module.fail(part, f"the tensor has the shape {list(found)}, and should have one scale, or one for each row")
    else:
        block = (min(block[0], rows), min(block[1], cols))
        module.expect(part, (-(-rows // block[0]), -(-cols // block[1])), *FLOATS)
    return Float8Weight(module, (rows, cols), part, block)


@dataclass(frozen=True, slots=True)
class Float8Scheme:
    """A ``Scheme``.

    Attributes:
        block: rows and columns that share a scale; None: a tensor or a row does.
    """

    block: tuple[int, int] | None
    ignored: tuple[str, ...] = OF_ACTIVATIONS

    def weights(self, tensors: FolderTensors) -> Mapping[str, Float8Weight]:
        """See ``Scheme``."""
        found = modules(tensors, "weight", FLOAT8)
        return {module.full("weight"): float8_weight(module, self.block) for module in found}
