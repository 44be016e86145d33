"""A GGUF file as a model."""

from __future__ import annotations

from pathlib import Path

from layerscale_core.errors import ModelFileError
from layerscale_core.formats.gguf.numbers import read_family, read_numbers
from layerscale_core.formats.gguf.parts import is_first_part, open_parts, stem_of
from layerscale_core.formats.gguf.reader import MAGIC
from layerscale_core.formats.gguf.rope import ROPE_TENSORS
from layerscale_core.formats.gguf.tensors import GgufTensors
from layerscale_core.formats.gguf.weights import stored_tensors
from layerscale_core.formats.metadata import Metadata
from layerscale_core.formats.weights import StoredWeights
from layerscale_core.models.describe import describe, unit_weights
from layerscale_core.specs.model_format import ModelFile, WeightSource
from layerscale_core.specs.tokenizer import Tokenizer

CHAT_TEMPLATE = "tokenizer.chat_template"


class GgufFormat:
    """The ``ModelFormat`` for one ``.gguf`` file, any of the parts of one, or a directory that holds just one.

    A GGUF file beside a model in safetensors is a conversion of it, which is read when it is named.
    """

    name = "gguf"

    def matches(self, path: Path) -> bool:
        """By the name or the first bytes of a file, or the names in a directory."""
        try:
            if path.is_dir():
                return bool(_files_in(path)) and not any(path.glob("*.safetensors"))
            if not path.is_file():
                return False
            if _is_named_gguf(path):
                return True
            with path.open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except OSError:
            return False

    def open(self, path: Path, *, metadata_only: bool = False) -> ModelFile:
        """See ``ModelFormat``."""
        if not path.is_dir():
            return GgufModelFile(path, metadata_only=metadata_only)
        files = _files_in(path)
        if len(files) != 1:
            raise ModelFileError(str(path), f"the directory holds {len(files)} .gguf models; name one file")
        return GgufModelFile(files[0], metadata_only=metadata_only)


def _files_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if _is_named_gguf(path) and is_first_part(path))


def _is_named_gguf(path: Path) -> bool:
    return path.suffix.lower() == ".gguf"


class GgufModelFile:
    """An opened GGUF model: a ``ModelFile``, whose attributes are those of the protocol.

    Args:
        metadata_only: see ``ModelFormat.open``.

    Raises:
        ModelFileError: missing, truncated, corrupt or hostile.
        UnsupportedModelError: an architecture or type this build cannot run.
    """

    def __init__(self, path: Path, *, metadata_only: bool = False) -> None:
        self._path = path
        parts, metadata = open_parts(path, metadata_only=metadata_only)
        self._size_bytes = sum(part.num_bytes for part in parts)
        self._tensors = GgufTensors(parts)
        self.chat_template = metadata.text(CHAT_TEMPLATE) if CHAT_TEMPLATE in metadata else None
        self._vocabulary: Metadata | Tokenizer = metadata
        family = read_family(metadata)
        numbers = read_numbers(metadata, self._tensors, family)
        self.spec = describe(family, numbers)
        stored, ones = stored_tensors(self.spec, family, numbers.logit_scale), unit_weights(family, self.spec)
        self.weights: WeightSource = StoredWeights(self._tensors, self.spec, stored, ROPE_TENSORS, str(path), ones=ones)

    @property
    def name(self) -> str:
        """The file's name without its extension, and without the number of a part."""
        return stem_of(self._path)

    @property
    def size_bytes(self) -> int:
        """See ``ModelFile``."""
        return self._size_bytes

    @property
    def fingerprint(self) -> str:
        """See ``ModelFile``."""
        return self._tensors.fingerprint()

    def make_tokenizer(self) -> Tokenizer:
        """See ``ModelFile``; once it is built, the metadata is given up for it, which is nearly all vocabulary."""
        # Tokenizing needs a library of its own, which planning and inspecting a model do without.
        from layerscale_core.tokenizers.gguf import tokenizer_from_gguf  # noqa: PLC0415

        if isinstance(self._vocabulary, Metadata):
            self._vocabulary = tokenizer_from_gguf(self._vocabulary.values, str(self._path))
        return self._vocabulary

    def close(self) -> None:
        """See ``ModelFile``."""
        self._tensors.close()
