"""Scratch memory of kernels that split a tile over several programs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Workspace:
    """Memory that one stream's kernels share, one after the other.

    Attributes:
        partials: float32, what programs leave for the last of their tile.
        counters: int32, programs of a tile that are done; zero between kernels.
    """

    partials: Tensor
    counters: Tensor

    def holds(self, num_partials: int, num_counters: int) -> bool:
        """Whether a split of that size has room; without it a program does its tile alone, with the same result."""
        return num_partials <= self.partials.numel() and num_counters <= self.counters.numel()


def allocate_workspace(device: torch.device | str, num_partials: int, num_counters: int) -> Workspace:
    """Zeroed counters, and partials with whatever they hold."""
    return Workspace(
        torch.empty(num_partials, dtype=torch.float32, device=device),
        torch.zeros(num_counters, dtype=torch.int32, device=device),
    )
