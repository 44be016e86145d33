"""Offload: which layers' weights stay in host memory (``--cpu-offload-gb``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class OffloadPlan:
    """Where each layer's weights live.

    Attributes:
        host_layers: indices of the layers that stay in host memory and are computed there, ascending.
    """

    host_layers: tuple[int, ...] = ()


class OffloadPlanner(Protocol):
    """Turns a budget into a plan."""

    def plan(self, layer_bytes: Sequence[int], budget_bytes: int) -> OffloadPlan:
        """Choose the layers to keep in host memory. May be called several times, with different budgets.

        Args:
            layer_bytes: a size for each layer: its share of the model's file.
            budget_bytes: what the user granted; 0 = nothing moves.
        """
        ...
