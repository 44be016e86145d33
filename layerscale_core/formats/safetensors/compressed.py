"""Checkpoints of the compressed-tensors library: integers packed in words or in bytes, and 8-bit floats.

A configuration may name several schemes for several modules. Which of them a module has is read off its tensors: the
one whose shapes they have. Source: https://github.com/vllm-project/compressed-tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from layerscale_core.formats.safetensors.float8 import FLOAT8, OF_ACTIVATIONS, float8_weight
from layerscale_core.formats.safetensors.header import FLOATS
from layerscale_core.formats.safetensors.integers import Codes, Floats, Groups, IntegerWeight, check_layout, unpack
from layerscale_core.formats.safetensors.packed import Module, PackedWeight, modules
from layerscale_core.formats.safetensors.tensors import FolderTensors

_PACKED, _PLAIN, _SCALE, _ZERO = "weight_packed", "weight", "weight_scale", "weight_zero_point"


@dataclass(frozen=True, slots=True)
class WeightScheme:
    """How weights of some modules are quantised.

    Attributes:
        bits: 4 or 8.
        is_float: 8-bit floats.
        group_size: columns that share a scale; None: a row's or more.
        block: rows and columns that share a scale, of floats; None: as ``group_size`` says.
    """

    bits: int
    is_float: bool
    group_size: int | None
    block: tuple[int, int] | None = None

    def fits(self, scale_shape: tuple[int, ...], rows: int, cols: int) -> bool:
        """Whether scales of this shape are those of codes [rows, cols]."""
        if self.group_size is None:
            return scale_shape in ((), (1,), (rows,), (rows, 1))
        return scale_shape == (rows, -(-cols // self.group_size))


@dataclass(frozen=True, slots=True)
class CompressedScheme:
    """A ``Scheme``.

    Attributes:
        schemes: those of the configuration.
    """

    schemes: frozenset[WeightScheme]
    ignored: tuple[str, ...] = (*OF_ACTIVATIONS, ".input_zero_point", ".output_zero_point", ".weight_shape")

    def weights(self, tensors: FolderTensors) -> Mapping[str, PackedWeight]:
        """See ``Scheme``."""
        found: dict[str, PackedWeight] = {}
        for module in modules(tensors, _PLAIN, FLOAT8):
            found[module.full(_PLAIN)] = self._float_weight(module)
        for module in modules(tensors, _PLAIN, "I8"):
            found[module.full(_PLAIN)] = self._integer_weight(module, _PLAIN)
        for module in modules(tensors, _PACKED):
            found[module.full(_PLAIN)] = self._integer_weight(module, _PACKED)
        return found

    def _float_weight(self, module: Module) -> PackedWeight:
        blocks = {scheme.block for scheme in self.schemes if scheme.is_float}
        if len(blocks) != 1:
            module.fail(_PLAIN, f"config_groups has {len(blocks)} schemes for 8-bit floats, and should have one")
        return float8_weight(module, *blocks)

    def _integer_weight(self, module: Module, part: str) -> PackedWeight:
        rows, width = module.matrix_shape(part, "I32" if part == _PACKED else "I8")
        scheme, cols = self._scheme_of(module, rows, width, is_packed=part == _PACKED)
        group_size = min(scheme.group_size or cols, cols)
        has_zeros = module.has(_ZERO)
        check_layout(module, cols, scheme.bits, group_size, has_zeros=has_zeros)
        if has_zeros:
            _check_zeros(module, rows, -(-cols // group_size))
        if module.has("weight_g_idx"):
            module.refuse("its inputs are sorted by activation (weight_g_idx), which cannot be computed")

        def read(start: int, stop: int) -> Groups:
            raw = module.array(part)[start:stop]
            codes: Codes = raw.view(np.uint8) if part == _PLAIN else unpack(raw, scheme.bits).reshape(len(raw), cols)
            if part == _PLAIN:
                codes = codes ^ np.uint8(0x80)  # from signed to the codes around 128
            return Groups(codes, _scales(module, start, stop), _zeros(module, start, stop) if has_zeros else None)

        parts = tuple(module.full(name) for name in (part, _SCALE, _ZERO) if module.has(name))
        return IntegerWeight(parts, (rows, cols), scheme.bits, group_size, has_zeros, read)

    def _scheme_of(self, module: Module, rows: int, width: int, *, is_packed: bool) -> tuple[WeightScheme, int]:
        """The one scheme that the shape of the scales is of, and the weight's columns by it."""
        scale_shape = module.shape(_SCALE, *FLOATS)
        schemes = [scheme for scheme in self.schemes if not scheme.is_float and (is_packed or scheme.bits == 8)]
        widths = [(scheme, width * 32 // scheme.bits if is_packed else width) for scheme in schemes]
        fitting = [(scheme, cols) for scheme, cols in widths if scheme.fits(scale_shape, rows, cols)]
        if len(fitting) != 1:
            count = "more than one scheme" if fitting else "no scheme"
            module.fail(_SCALE, f"{count} of config_groups has scales of the shape {list(scale_shape)} here")
        return fitting[0]


def _scales(module: Module, start: int, stop: int) -> Floats:
    """[rows, groups], whatever shares a scale."""
    scales = module.floats(_SCALE)
    if scales.size == 1:
        return np.full((stop - start, 1), scales.reshape(-1)[0], np.float32)
    return scales.reshape(len(scales), -1)[start:stop]


def _check_zeros(module: Module, rows: int, num_groups: int) -> None:
    """Zero points are packed along the rows, or in older files plain."""
    packed = module.shape(_ZERO, "I32", "I8")
    shape = (rows, num_groups) if module.type_of(_ZERO) == "I8" else (-(-rows // 8), num_groups)
    if packed != shape:
        module.expect(_ZERO, shape, "I32", "I8")


def _zeros(module: Module, start: int, stop: int) -> Codes:
    """Codes of 4 bits that stand for 0: [rows, groups]."""
    stored = module.array(_ZERO)
    if stored.dtype == np.int8:
        return stored[start:stop].view(np.uint8) + np.uint8(8) & np.uint8(0xF)
    return unpack(stored, 4).transpose(0, 2, 1).reshape(-1, stored.shape[1])[start:stop]
