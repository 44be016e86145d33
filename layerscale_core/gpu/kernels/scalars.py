"""Functions of single numbers, elementwise, and a sum that has no order."""

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """By the exponential of ``-|2x|``, which cannot overflow. Absolute error below 1e-6."""
    shrunk = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - shrunk) / (1.0 + shrunk)
    return tl.where(x < 0, -size, size)


@triton.jit
def silu(x):
    """``x / (1 + e^-x)``."""
    return x / (1.0 + tl.exp(-x))


@triton.jit
def gelu_tanh(x):
    """``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x³)))`` (arXiv:1606.08415)."""
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


@triton.jit
def softcapped(x, cap):
    """``cap * tanh(x / cap)``."""
    return cap * tanh(x / cap)


@triton.jit
def nearest_int(x):
    """The nearest whole number, ties to even, for ``|x| < 2^22``: beyond 1.5 * 2^23 a float32 has no fraction."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def order_free_sum(x, largest):
    """The sum over axis 0 of numbers from 0 to each column's ``largest``, in units of 2^-22 of that; at most 256 rows.

    Which rows a thread adds first, the compiler decides by the tile's width, and so by the batch. Whole numbers have
    one sum in every order. They are made as in ``nearest_int``, and read off the last bits of the mantissa.
    """
    largest = tl.maximum(largest, 1e-30)
    shifted = x * (4194304.0 / largest)[None, :] + 12582912.0
    whole = shifted.to(tl.int32, bitcast=True) - 0x4B400000
    return tl.sum(whole, axis=0).to(tl.float32) * (largest / 4194304.0)
