"""NVIDIA's GPUs as data. Sizes follow from what the hardware is; none was measured yet."""

from __future__ import annotations

from dataclasses import replace

from layerscale_backend_cuda.driver import find_driver
from layerscale_core.gpu.tuning import Launch, ProductTile, Tuning
from layerscale_core.gpu.vendor import Vendor

_EVERYTHING = 2**31

_AMPERE = Tuning(
    products=(ProductTile(16, 16, Launch(num_stages=4)), ProductTile(_EVERYTHING, 64, Launch(8, 3))),
    target_programs=216,  # two for each of an A100's 108 multiprocessors
)
_ADA = Tuning(
    products=(ProductTile(16, 16, Launch(num_stages=3)), ProductTile(_EVERYTHING, 64, Launch(8, 2))),
    target_programs=284,  # an L40S has 142, each with 100 KiB of shared memory; an RTX 3090's are alike
)
_HOPPER = Tuning(
    products=(ProductTile(16, 16, Launch(num_stages=4)), ProductTile(_EVERYTHING, 64, Launch(8, 3))),
    target_programs=264,  # an H100 and an H200 have 132
)
_BLACKWELL = Tuning(
    products=(ProductTile(16, 16, Launch(num_stages=4)), ProductTile(_EVERYTHING, 64, Launch(8, 3))),
    target_programs=296,  # a B200 has 148
)
_GEFORCE = replace(_ADA, target_programs=340)  # an RTX 5090 has 170

NVIDIA = Vendor(
    name="cuda",
    label="NVIDIA",
    platform="cuda",
    find_driver=find_driver,
    tunings={
        "sm_80": _AMPERE,
        "sm_86": _ADA,
        "sm_89": _ADA,
        "sm_90": _HOPPER,
        "sm_100": _BLACKWELL,
        "sm_120": _GEFORCE,
    },
)
"""What the CUDA backend is made of."""
