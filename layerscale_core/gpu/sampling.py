"""Picking tokens on the device, so that logits need not come to the host."""

from __future__ import annotations

from torch import Tensor

from layerscale_core.gpu.kernels.sampling import sample_kernel
from layerscale_core.gpu.launch import ceil_div, launch, next_power_of_two
from layerscale_core.gpu.tuning import Launch
from layerscale_core.gpu.workspace import Workspace

_LAUNCH = Launch(num_warps=8, num_stages=1)
_SIZE = 4096
"""Logits that a program looks at."""


def argmax(logits: Tensor, found: Tensor, workspace: Workspace) -> Tensor:
    """The token of each row's largest logit, of equals the first, and whether all of the row's logits are finite.

    Args:
        logits: [n, vocab_size], any float dtype.
        found: int32 [n, 2], the token and 1 or 0; returned. The token of a row that is not finite means nothing.
    """
    return _launch(logits, None, None, found, workspace)


def sample(logits: Tensor, temperatures: Tensor, seeds: Tensor, found: Tensor, workspace: Workspace) -> Tensor:
    """As ``argmax``, a draw from ``softmax(logits / temperature)`` for rows whose temperature is above 0.

    Args:
        temperatures: float32 [n].
        seeds: int64 [n]; a row's draw depends on its logits and its seed alone, so that a new token needs a new seed.
    """
    return _launch(logits, temperatures, seeds, found, workspace)


def _launch(
    logits: Tensor, temperatures: Tensor | None, seeds: Tensor | None, found: Tensor, workspace: Workspace
) -> Tensor:
    num_rows, vocab_size = logits.shape
    num_parts = ceil_div(vocab_size, _SIZE)
    assert workspace.holds(3 * num_rows * num_parts, num_rows)
    launch(
        sample_kernel, (num_rows, num_parts), _LAUNCH,
        logits, temperatures, seeds, found, workspace.partials, workspace.counters, vocab_size,
        IS_RANDOM=temperatures is not None, SIZE=_SIZE, PARTS=next_power_of_two(num_parts),
    )  # fmt: skip
    return found
