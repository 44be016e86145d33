"""A folder with ``config.json`` and safetensors files as a model."""

from __future__ import annotations

from pathlib import Path

from layerscale_core.errors import ModelFileError
from layerscale_core.formats.safetensors.config import CONFIG_FILE, read_config, read_numbers
from layerscale_core.formats.safetensors.packed import PackedTensors
from layerscale_core.formats.safetensors.quantization import read_scheme
from layerscale_core.formats.safetensors.tensors import INDEX_FILE, WHOLE_FILE, FolderTensors
from layerscale_core.formats.safetensors.text import read_chat_template, read_tokenizer
from layerscale_core.formats.safetensors.weights import find_prefix, other_tensors, stored_tensors
from layerscale_core.formats.weights import StoredWeights
from layerscale_core.models.describe import describe, unit_weights
from layerscale_core.specs.model_format import ModelFile, WeightSource
from layerscale_core.specs.tokenizer import Tokenizer


class SafetensorsFormat:
    """The ``ModelFormat`` for a folder as Hugging Face's libraries save it."""

    name = "safetensors"

    def matches(self, path: Path) -> bool:
        """A folder with a ``config.json``, or a file of its weights."""
        try:
            return path.suffix == ".safetensors" if path.is_file() else (path / CONFIG_FILE).is_file()
        except (OSError, ValueError):
            return False

    def open(self, path: Path, *, metadata_only: bool = False) -> ModelFile:
        """See ``ModelFormat``."""
        if path.is_file():
            raise ModelFileError(str(path), f"name the folder that holds it beside its {CONFIG_FILE}")
        if not any((path / name).exists() for name in (WHOLE_FILE, INDEX_FILE)):
            raise ModelFileError(
                str(path), f"there is neither {WHOLE_FILE} nor {INDEX_FILE}; weights in other formats are not read"
            )
        return SafetensorsModelFile(path, metadata_only=metadata_only)


class SafetensorsModelFile:
    """An opened folder: a ``ModelFile``, whose attributes are those of the protocol.

    Args:
        metadata_only: see ``ModelFormat.open``.

    Raises:
        ModelFileError: a file is missing, truncated, corrupt or hostile.
        UnsupportedModelError: a family or type this build cannot run.
    """

    def __init__(self, folder: Path, *, metadata_only: bool = False) -> None:
        self._folder = folder
        self._config, family = read_config(folder)
        numbers = read_numbers(self._config, family)
        self.spec = describe(family, numbers)
        scheme = read_scheme(self._config)
        self.chat_template = read_chat_template(folder)
        self._tensors = FolderTensors(folder, metadata_only=metadata_only)
        try:
            tensors = PackedTensors(self._tensors, scheme)
            found = tensors.shapes()
            prefix = find_prefix(found)
            stored = list(stored_tensors(self.spec, family, prefix, numbers.logit_scale))
            tensors.check_types(tensor.name for tensor in stored)
            other = other_tensors(found, self.spec, prefix) | tensors.zero_biases()
            ones = unit_weights(family, self.spec)
            self.weights: WeightSource = StoredWeights(tensors, self.spec, stored, other, str(folder), ones=ones)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._folder.resolve().name

    @property
    def size_bytes(self) -> int:
        """See ``ModelFile``."""
        return self._tensors.total_bytes

    @property
    def fingerprint(self) -> str:
        """See ``ModelFile``."""
        return self._tensors.fingerprint(repr(sorted(self._config.values.items())).encode("utf-8", "replace"))

    def make_tokenizer(self) -> Tokenizer:
        """See ``ModelFile``."""
        return read_tokenizer(self._folder, self._config, self.spec.vocab_size)

    def close(self) -> None:
        """See ``ModelFile``."""
        self._tensors.close()
