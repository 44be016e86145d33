"""Offload: which layers' weights stay in host memory (``--cpu-offload-gb``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class OffloadPlan:
    """Where each layer's weights live.

    Attributes:
        host_layers: indices of the layers computed from host memory.
    """

    host_layers: tuple[int, ...] = ()


class OffloadPlanner(Protocol):
    """Turns a budget into a plan."""

    def plan(self, layer_bytes: Sequence[int], budget_bytes: int) -> OffloadPlan:
        """Choose the layers to keep in host memory.

        Args:
            layer_bytes: bytes of each layer's weights.
            budget_bytes: what the user granted; 0 = nothing moves.
        """
        ...
