"""What a torch device is, what it does at best, and how long something takes on it."""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from layerscale_core.specs import Device

_MAX_SECONDS = 3.0


def synchronize(device: torch.device) -> None:
    """Wait until the device has done everything."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def median_seconds(device: torch.device, call: Callable[[], object], repetitions: int) -> float:
    """Median time of a call, the device's work included, after two that are not counted."""
    samples: list[float] = []
    for index in range(repetitions + 2):
        started = time.perf_counter()
        call()
        synchronize(device)
        if index >= 2:
            samples.append(time.perf_counter() - started)
        if sum(samples) > _MAX_SECONDS:
            break
    return statistics.median(samples)


def copy_rate(device: torch.device, num_bytes: int) -> float:
    """Bytes per second that a copy within the device reads and writes."""
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / median_seconds(device, lambda: target.copy_(source), 20)


def matrix_rate(device: torch.device, size: int) -> float:
    """Operations per second of a bfloat16 product of square matrices."""
    left = torch.randn(size, size, device=device).bfloat16()
    right = torch.randn(size, size, device=device).bfloat16()
    return 2 * size**3 / median_seconds(device, lambda: left @ right, 20)


def describe_machine(device: Device) -> dict[str, Any]:
    """What a stranger needs to repeat a measurement."""
    return {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device.infos[0].description,
        "driver": first_output(
            ["nvidia-smi", "--query-gpu=name,driver_version,power.limit,clocks.max.sm,clocks.max.mem", "--format=csv"],
            ["rocm-smi", "--showproductname", "--showdriverversion"],
        ),
        "host": f"{platform.platform()}, Python {platform.python_version()}",
        "commit": first_output(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]),
        "versions": {name: installed(name) for name in ("layerscale-engine", "torch", "triton", "transformers")},
    }


def first_output(*commands: list[str]) -> str:
    """What the first of several programs says that is there; empty where none is."""
    for command in commands:
        if shutil.which(command[0]):
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            return result.stdout.strip()
    return ""


def installed(name: str) -> str:
    """A distribution's version: AMD's Triton, for one, comes under another name."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
