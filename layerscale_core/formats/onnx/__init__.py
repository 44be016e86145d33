"""Decoders exported to ONNX, read without trusting them, and onnxruntime, which runs them."""

from layerscale_core.formats.onnx.backend import OnnxBackend
from layerscale_core.formats.onnx.model import OnnxFormat, OnnxModelFile

__all__ = ["OnnxBackend", "OnnxFormat", "OnnxModelFile"]
