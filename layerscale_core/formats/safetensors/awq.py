"""AWQ checkpoints as AutoAWQ's ``gemm`` version packs them (arXiv:2306.00978).

Codes of 4 bits lie transposed, [in, out], eight outputs to a 32-bit word in an order of its own; so do the zero points
of each group of inputs. Source: https://github.com/casper-hansen/AutoAWQ (awq/modules/linear/gemm.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from layerscale_core.formats.safetensors.header import FLOATS
from layerscale_core.formats.safetensors.integers import Codes, Groups, IntegerWeight, check_layout, unpack
from layerscale_core.formats.safetensors.packed import Module, modules
from layerscale_core.formats.safetensors.tensors import FolderTensors

BITS = 4
_PER_WORD = 8
_PLACES = np.array([0, 4, 1, 5, 2, 6, 3, 7])
"""Where the code of each of a word's eight outputs lies in it."""


@dataclass(frozen=True, slots=True)
class AwqScheme:
    """A ``Scheme``.

    Attributes:
        group_size: inputs that share a scale; None: all.
    """

    group_size: int | None
    ignored: tuple[str, ...] = ()

    def weights(self, tensors: FolderTensors) -> Mapping[str, IntegerWeight]:
        """See ``Scheme``."""
        return {module.full("weight"): self._weight(module) for module in modules(tensors, "qweight")}

    def _weight(self, module: Module) -> IntegerWeight:
        cols, words = module.matrix_shape("qweight", "I32")
        group_size = min(self.group_size or cols, cols)
        num_groups = -(-cols // group_size)
        module.expect("qzeros", (num_groups, words), "I32")
        module.expect("scales", (num_groups, words * _PER_WORD), *FLOATS)
        check_layout(module, cols, BITS, group_size, has_zeros=True)
        parts = tuple(map(module.full, ("qweight", "qzeros", "scales")))
        shape = (words * _PER_WORD, cols)
        return IntegerWeight(parts, shape, BITS, group_size, has_zeros=True, read=partial(_read, module))


def _read(module: Module, start: int, stop: int) -> Groups:
    codes, zeros = (_outputs(module.array(part), start, stop) for part in ("qweight", "qzeros"))
    return Groups(codes, module.floats("scales", np.s_[:, start:stop]).T, zeros)


def _outputs(words: Any, start: int, stop: int) -> Codes:
    """Codes of some outputs: [outputs, words' rows]."""
    first = start // _PER_WORD
    codes = unpack(words[:, first : -(-stop // _PER_WORD)], BITS)[..., _PLACES].reshape(len(words), -1)
    return codes[:, start - first * _PER_WORD : stop - first * _PER_WORD].T
