"""What a torch device does at best, and how long something takes on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

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
