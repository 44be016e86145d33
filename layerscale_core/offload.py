"""The default offload planner, and how layers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

from layerscale_core.specs.offload import OffloadPlan


class FirstLayersPlanner:
    """Whole layers, the first of the model: side by side, so that activations leave the device once a step.

    The budget buys ``budget / mean layer size`` layers, rounded up: a user who grants a little gets a little more.
    """

    def plan(self, layer_bytes: Sequence[int], budget_bytes: int) -> OffloadPlan:
        """Choose the layers to keep in host memory; with a budget beyond the model, all of them."""
        num_layers, total_bytes = len(layer_bytes), sum(layer_bytes)
        if budget_bytes >= total_bytes:
            return OffloadPlan(tuple(range(num_layers)) if budget_bytes > 0 else ())
        return OffloadPlan(tuple(range(math.ceil(budget_bytes * num_layers / total_bytes))))


def layer_ranges(layers: Sequence[int]) -> str:
    """Ascending indices of layers for people: ``0-11`` or ``0-2, 5``."""
    text, first = [], None
    for index in layers:
        first = index if first is None else first
        if index + 1 not in layers:
            text.append(str(first) if first == index else f"{first}-{index}")
            first = None
    return ", ".join(text)
