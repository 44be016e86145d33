"""Models as data: layer descriptions and weight layouts."""

from layerscale_core.models.matrix import DenseMatrix, Matrix, QuantizedMatrix
from layerscale_core.models.spec import (
    Activation,
    AttentionSpec,
    LayerSpec,
    MlpSpec,
    ModelSpec,
    MoeSpec,
    RopeSpec,
    TemperatureSpec,
)

__all__ = [
    "Activation",
    "AttentionSpec",
    "DenseMatrix",
    "LayerSpec",
    "Matrix",
    "MlpSpec",
    "ModelSpec",
    "MoeSpec",
    "QuantizedMatrix",
    "RopeSpec",
    "TemperatureSpec",
]
