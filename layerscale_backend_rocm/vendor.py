"""AMD's GPUs as data. Sizes follow from what the hardware is; none was measured yet."""

from __future__ import annotations

from layerscale_backend_rocm.driver import find_driver
from layerscale_core.gpu.tuning import AttentionTile, Launch, ProductTile, Tuning
from layerscale_core.gpu.vendor import Vendor

_EVERYTHING = 2**31
_ONE_INSTRUCTION = (("matrix_instr_nonkdim", 16),)
"""The compiler would choose a matrix instruction by a tile's sides, and so the order of sums by the batch."""

_FEW = Launch(options=_ONE_INSTRUCTION)
_MANY = Launch(num_warps=8, options=_ONE_INSTRUCTION)
_SPREAD = Launch(num_warps=8, num_stages=1, options=_ONE_INSTRUCTION)
"""A tile over more threads, for devices that hold less of it in each, such as RDNA."""


def _tuning(num_units: int, attention: Launch = _FEW) -> Tuning:
    """For so many compute units. Two tiles are in flight: there are 64 KiB of local memory."""
    return Tuning(
        products=(ProductTile(16, 16, _FEW), ProductTile(_EVERYTHING, 64, _MANY)),
        attention=(AttentionTile(1, 16, attention), AttentionTile(_EVERYTHING, 32, attention)),
        target_programs=2 * num_units,
    )


AMD = Vendor(
    name="rocm",
    label="AMD",
    platform="hip",
    find_driver=find_driver,
    tunings={
        "gfx90a": _tuning(104),  # one of an MI250's two dies
        "gfx942": _tuning(304),  # MI300X
        "gfx950": _tuning(256),  # MI350X
        "gfx1100": _tuning(96, _SPREAD),  # RX 7900 XTX; with four waves decode spills hundreds of bytes a thread
    },
)
"""What the ROCm backend is made of."""
