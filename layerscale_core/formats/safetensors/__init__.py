"""A folder as Hugging Face's libraries save a model: safetensors beside JSON, read without trusting it."""

from layerscale_core.formats.safetensors.model import SafetensorsFormat, SafetensorsModelFile

__all__ = ["SafetensorsFormat", "SafetensorsModelFile"]
