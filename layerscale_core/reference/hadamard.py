"""The rotation that spreads outliers over all elements of a key or value before it is rounded to codes."""

from __future__ import annotations

import numpy as np

from layerscale_core.reference.arrays import Floats


def rotate(vectors: Floats) -> Floats:
    """Fixed signs, then a Walsh-Hadamard transform of the largest power of two that divides the head.

    Source: arXiv:2404.00456. Orthogonal: scalar products of vectors that are rotated alike stay what they are.
    """
    return _hadamard(vectors * signs(vectors.shape[-1]))


def rotate_back(vectors: Floats) -> Floats:
    """The inverse of ``rotate``."""
    rotated: Floats = _hadamard(vectors) * signs(vectors.shape[-1])
    return rotated


def _hadamard(vectors: Floats) -> Floats:
    # Sums and differences of elements, no matrix product: the bits do not depend on how many vectors there are.
    head_dim = vectors.shape[-1]
    block = head_dim & -head_dim
    width = 1
    while width < block:
        pairs = vectors.reshape(*vectors.shape[:-1], head_dim // (2 * width), 2, width)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        vectors = np.stack([first + second, first - second], axis=-2).reshape(vectors.shape)
        width *= 2
    scaled: Floats = vectors * np.float32(block**-0.5)
    return scaled


def signs(head_dim: int) -> Floats:
    """Of the rotation. Any fixed sequence serves; this one is congruential."""
    state = 1
    signs = np.empty(head_dim, np.float32)
    for dim in range(head_dim):
        state = (state * 1664525 + 1013904223) % 2**32
        signs[dim] = -1 if state >> 31 else 1
    return signs
