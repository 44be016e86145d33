"""AMD's driver: whether it is there, without touching a device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from layerscale_core.errors import BackendError

NODES = "sys/class/kfd/kfd/topology/nodes"
"""A folder for each processor that the driver knows; the host's have no SIMD units."""


def find_driver(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str:
    """The number of GPUs, in words.

    Args:
        root: where ``dev`` and ``sys`` lie.

    Raises:
        BackendError: no driver, no GPU, or none that this process may use.
    """
    device = root / "dev/kfd"
    if not device.exists():
        raise BackendError(
            "no AMD GPU driver: there is no /dev/kfd; a container needs --device /dev/kfd --device /dev/dri"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise BackendError("/dev/kfd may not be opened: add this user to the groups render and video")
    num_gpus = sum(_is_gpu(node) for node in root.glob(f"{NODES}/*/properties"))
    if num_gpus == 0:
        raise BackendError("no AMD GPU: the driver lists none")
    for variable in ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        if environ.get(variable, "0").strip() in {"", "-1"}:
            raise BackendError(f"{variable} hides every AMD GPU; unset it")
    return f"{num_gpus} AMD GPU{'s' if num_gpus > 1 else ''}"


def _is_gpu(properties: Path) -> bool:
    try:
        fields = dict(line.split(maxsplit=1) for line in properties.read_text().splitlines())
    except (OSError, ValueError):
        return False
    return int(fields.get("simd_count", "0")) > 0
