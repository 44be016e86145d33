"""The reference: every kernel in plain numpy, slow and obvious; what all other kernels are measured against."""

from layerscale_core.reference.kernels import ReferenceKernels
from layerscale_core.reference.memory import reference_memory_needs

__all__ = ["ReferenceKernels", "reference_memory_needs"]
