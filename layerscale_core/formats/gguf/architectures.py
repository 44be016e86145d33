"""Which families of models are known: a name in a file's metadata, and the function that describes such a model."""

from __future__ import annotations

from collections.abc import Callable

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.formats.gguf.llama import describe_llama
from layerscale_core.formats.gguf.metadata import Metadata
from layerscale_core.formats.gguf.tensors import GgufTensors
from layerscale_core.models import ModelSpec

ARCHITECTURES: dict[str, Callable[[Metadata, GgufTensors], ModelSpec]] = {"llama": describe_llama}


def describe_model(metadata: Metadata, tensors: GgufTensors) -> ModelSpec:
    """What a file's model is.

    Raises:
        ModelFileError: a key is missing or makes no sense.
        UnsupportedModelError: an architecture this build does not know.
    """
    name = metadata.text("general.architecture")
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UnsupportedModelError(f"{metadata.path}: the architecture {name[:64]!r} is not supported; known: {known}")
    return ARCHITECTURES[name](metadata, tensors)
