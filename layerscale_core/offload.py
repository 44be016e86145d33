"""The default offload planner."""

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
