"""NVIDIA's driver: whether it is there, without touching a device."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from layerscale_core.errors import BackendError

LIBRARY = "libcuda.so.1"


def find_driver(
    root: Path = Path("/"), environ: Mapping[str, str] = os.environ, load: Callable[[str], object] = ctypes.CDLL
) -> str:
    """The number of GPUs, in words.

    Args:
        root: where ``dev`` lies.
        load: loads a shared library.

    Raises:
        BackendError: no GPU, none that this process may see, or no driver.
    """
    # Windows' subsystem for Linux has one device for all GPUs, and lets CUDA's library find them.
    num_gpus = len(list(root.glob("dev/nvidia[0-9]*"))) or int((root / "dev/dxg").exists())
    if num_gpus == 0:
        raise BackendError("no NVIDIA GPU: there is no /dev/nvidia0; a container needs --gpus all")
    if environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in {"", "-1"}:
        raise BackendError("CUDA_VISIBLE_DEVICES hides every NVIDIA GPU; unset it")
    try:
        load(LIBRARY)
    except OSError as error:
        raise BackendError(f"no NVIDIA driver: {' '.join(str(error).split())}") from None
    return f"{num_gpus} NVIDIA GPU{'s' if num_gpus > 1 else ''}"
