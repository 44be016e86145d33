"""AMD's GPUs as data. Sizes follow from what the hardware is; none was measured yet."""

from __future__ import annotations

from layerscale_backend_rocm.driver import find_driver
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.gpu.vendor import Vendor

# Two programs for each compute unit. Tiles in flight stay at two: there are 64 KiB of local memory.
_MI250 = Tuning(target_programs=208)  # one of its two dies has 104 units
_MI300 = Tuning(target_programs=608)
_MI350 = Tuning(target_programs=512)
_RX7900 = Tuning(target_programs=192)

AMD = Vendor(
    name="rocm",
    label="AMD",
    platform="hip",
    find_driver=find_driver,
    tunings={"gfx90a": _MI250, "gfx942": _MI300, "gfx950": _MI350, "gfx1100": _RX7900},
)
"""What the ROCm backend is made of."""
