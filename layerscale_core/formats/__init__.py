"""Model files: from a path to an opened model, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerscale_core.errors import ModelFileError
from layerscale_core.formats.files import check_path
from layerscale_core.formats.gguf import GgufFormat
from layerscale_core.formats.onnx import OnnxFormat
from layerscale_core.formats.safetensors import SafetensorsFormat
from layerscale_core.specs.model_format import ModelFile, ModelFormat

__all__ = ["GgufFormat", "OnnxFormat", "SafetensorsFormat", "open_model"]


def open_model(path: Path, formats: Sequence[ModelFormat], *, metadata_only: bool = False) -> ModelFile:
    """Open a model with the first format that recognises it.

    Args:
        formats: asked in this order.
        metadata_only: see ``ModelFormat.open``.

    Raises:
        ModelFileError: the path is missing, unreadable, empty, of no known format, or the format found it corrupt.
        UnsupportedModelError: an architecture or type this build cannot run.
    """
    check_path(path)
    for model_format in formats:
        if model_format.matches(path):
            return model_format.open(path, metadata_only=metadata_only)
    known = ", ".join(model_format.name for model_format in formats) or "none"
    what = "the directory holds no model" if path.is_dir() else "not a model"
    raise ModelFileError(str(path), f"{what} of a known format ({known})")
