"""Launching a kernel."""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl

from layerscale_core.gpu.tuning import Launch

COMPUTE_TYPES: dict[torch.dtype, Any] = {
    torch.float16: tl.constexpr(tl.float16),
    torch.bfloat16: tl.constexpr(tl.bfloat16),
    torch.float32: tl.constexpr(tl.float32),
}
"""What products may be computed in; float32, without tensor cores, is for comparing."""


def launch(kernel: Any, grid: tuple[int, ...], how: Launch, *arguments: Any, **constants: Any) -> None:
    """Run a kernel over a grid of programs, on the current stream.

    A kernel is compiled at its first launch, which takes seconds, for each set of constants, dtypes and tuning, and for
    sizes of rows that 16 divides or does not. Numbers of tokens are no part of that.
    """
    compiler = {"num_warps": how.num_warps, "num_stages": how.num_stages, "enable_fp_fusion": True, **dict(how.options)}
    kernel[grid](*arguments, **constants, **compiler)


def next_power_of_two(number: int, least: int = 16) -> int:
    """The smallest power of two that is not below the number, nor below the least side of a matrix instruction."""
    return max(least, 1 << (number - 1).bit_length())


def ceil_div(number: int, divisor: int) -> int:
    """Parts of a size that cover a number."""
    return -(-number // divisor)
