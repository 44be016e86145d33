"""Functions of single elements and of rows, in float32."""

from __future__ import annotations

import math

import numpy as np

from layerscale_core.reference.arrays import Floats


def gelu_tanh(x: Floats) -> Floats:
    """``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x³)))``, in one temporary array."""
    y = np.square(x)
    y *= np.float32(0.044715)
    y += 1
    y *= x
    y *= np.float32(math.sqrt(2 / math.pi))
    np.tanh(y, out=y)
    y += 1
    y *= x
    y *= np.float32(0.5)
    return y


def sigmoid(scores: Floats) -> Floats:
    """``1 / (1 + exp(-x))``."""
    weights: Floats = np.exp(-scores)
    weights += 1
    return np.reciprocal(weights, out=weights)


def softmax(scores: Floats) -> Floats:
    """``exp(x) / sum(exp(x))`` along a row, shifted by its largest element so that nothing overflows."""
    weights: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def softcap(x: Floats, cap: float) -> Floats:
    """``cap * tanh(x / cap)``, in place."""
    x /= np.float32(cap)
    np.tanh(x, out=x)
    x *= np.float32(cap)
    return x
