"""Models as data: layer descriptions and weight layouts."""

from layerscale_core.models.matrix import DenseMatrix, Matrix, QuantizedMatrix
from layerscale_core.models.spec import Activation, AttentionSpec, LayerSpec, MlpSpec, ModelSpec, RopeSpec

__all__ = [
    "Activation",
    "AttentionSpec",
    "DenseMatrix",
    "LayerSpec",
    "Matrix",
    "MlpSpec",
    "ModelSpec",
    "QuantizedMatrix",
    "RopeSpec",
]
