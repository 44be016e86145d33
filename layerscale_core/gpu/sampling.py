"""Picking tokens on the device, so that logits need not come to the host."""

from __future__ import annotations

from torch import Tensor

from layerscale_core.gpu.kernels.sampling import sample_kernel
from layerscale_core.gpu.launch import launch, next_power_of_two
from layerscale_core.gpu.tuning import Launch

_LAUNCH = Launch(num_warps=8, num_stages=1)
_MAX_SIZE = 4096
"""Logits that a program looks at at a time."""


def argmax(logits: Tensor, token_ids: Tensor, are_finite: Tensor) -> None:
    """The token of each row's largest logit, of equals the first, and whether all of the row's logits are finite.

    Args:
        logits: [n, vocab_size], any float dtype.
        token_ids, are_finite: int32 [n], written. The token of a row that is not finite means nothing.
    """
    num_rows, vocab_size = logits.shape
    launch(
        sample_kernel, (num_rows,), _LAUNCH, logits, None, None, token_ids, are_finite, vocab_size,
        IS_RANDOM=False, SIZE=min(_MAX_SIZE, next_power_of_two(vocab_size)),
    )  # fmt: skip


def sample(logits: Tensor, temperatures: Tensor, seeds: Tensor, token_ids: Tensor, are_finite: Tensor) -> None:
    """As ``argmax``, a draw from ``softmax(logits / temperature)`` for rows whose temperature is above 0.

    Args:
        temperatures: float32 [n].
        seeds: int64 [n]; a row's draw depends on its logits and its seed alone, so that a new token needs a new seed.
    """
    num_rows, vocab_size = logits.shape
    launch(
        sample_kernel, (num_rows,), _LAUNCH, logits, temperatures, seeds, token_ids, are_finite, vocab_size,
        IS_RANDOM=True, SIZE=min(_MAX_SIZE, next_power_of_two(vocab_size)),
    )  # fmt: skip
