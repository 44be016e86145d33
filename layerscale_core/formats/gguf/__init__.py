"""GGUF, the model file format of the llama.cpp world, read without trusting it."""

from layerscale_core.formats.gguf.model import GgufFormat, GgufModelFile

__all__ = ["GgufFormat", "GgufModelFile"]
