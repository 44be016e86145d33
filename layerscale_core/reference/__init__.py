"""The reference: every kernel in plain numpy, slow and obvious; what all other kernels are measured against."""

from layerscale_core.reference.kernels import ReferenceKernels

__all__ = ["ReferenceKernels"]
