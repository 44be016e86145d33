"""GPTQ checkpoints as AutoGPTQ and GPTQModel pack them (arXiv:2210.17323).

Codes of 4 or 8 bits lie transposed, [in, out], several inputs to a 32-bit word; the zero points of each group of inputs
have several outputs to a word. The older format stores them less one. Inputs that were sorted by activation (``g_idx``)
would need their activations sorted too, which no internal layout says. Source: https://github.com/ModelCloud/GPTQModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from layerscale_core.formats.safetensors.header import FLOATS
from layerscale_core.formats.safetensors.integers import Codes, Groups, IntegerWeight, check_layout, unpack
from layerscale_core.formats.safetensors.packed import Module, modules
from layerscale_core.formats.safetensors.tensors import FolderTensors


@dataclass(frozen=True, slots=True)
class GptqScheme:
    """A ``Scheme``.

    Attributes:
        bits: 4 or 8.
        group_size: inputs that share a scale; None: all.
        is_symmetric: every zero point is half of all codes, and the file is held to it.
        zero_offset: what was taken from the stored zero points.
    """

    bits: int
    group_size: int | None
    is_symmetric: bool
    zero_offset: int
    ignored: tuple[str, ...] = ()

    def weights(self, tensors: FolderTensors) -> Mapping[str, IntegerWeight]:
        """See ``Scheme``."""
        return {module.full("weight"): self._weight(module) for module in modules(tensors, "qweight")}

    def _weight(self, module: Module) -> IntegerWeight:
        per_word = 32 // self.bits
        words, rows = module.matrix_shape("qweight", "I32")
        cols = words * per_word
        group_size = min(self.group_size or cols, cols)
        num_groups = -(-cols // group_size)
        module.expect("qzeros", (num_groups, -(-rows // per_word)), "I32")
        module.expect("scales", (num_groups, rows), *FLOATS)
        parts = ["qweight", "qzeros", "scales"]
        if module.has("g_idx"):
            module.expect("g_idx", (cols,), "I32")
            parts.append("g_idx")
        check_layout(module, cols, self.bits, group_size, has_zeros=not self.is_symmetric)

        def read(start: int, stop: int) -> Groups:
            if module.has("g_idx") and (module.array("g_idx") != np.arange(cols) // group_size).any():
                module.refuse("its inputs are sorted by activation (g_idx), which cannot be computed")
            codes = unpack(module.array("qweight")[:, start:stop], self.bits)
            codes = codes.transpose(1, 0, 2).reshape(stop - start, cols)
            scales = module.floats("scales", np.s_[:, start:stop]).T
            return Groups(codes, scales, self._zeros(module, start, stop))

        names = tuple(map(module.full, parts))
        return IntegerWeight(names, (rows, cols), self.bits, group_size, has_zeros=not self.is_symmetric, read=read)

    def _zeros(self, module: Module, start: int, stop: int) -> Codes | None:
        """Zero points [outputs, groups]; None where all are what a symmetric checkpoint's must be."""
        words = module.array("qzeros")
        stored = unpack(words, self.bits).reshape(len(words), -1)[:, start:stop].T
        zeros: Codes = (stored + np.uint8(self.zero_offset)) & np.uint8(2**self.bits - 1)  # -1 is stored as the last
        if not self.is_symmetric:
            return zeros
        if (zeros != 2 ** (self.bits - 1)).any():
            module.fail("qzeros", "zero points differ, though quantization_config says that weights are symmetric")
        return None
