"""A GGUF file as a model."""

from __future__ import annotations

from pathlib import Path

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats.files import map_file
from layerscale_core.formats.gguf.numbers import read_family, read_numbers
from layerscale_core.formats.gguf.reader import MAGIC, read_header
from layerscale_core.formats.gguf.rope import ROPE_TENSORS
from layerscale_core.formats.gguf.tensors import GgufTensors
from layerscale_core.formats.gguf.weights import stored_tensors
from layerscale_core.formats.weights import StoredWeights
from layerscale_core.models import ModelSpec
from layerscale_core.models.families import describe
from layerscale_core.specs.model_format import ModelFile, WeightSource
from layerscale_core.specs.tokenizer import Tokenizer

CHAT_TEMPLATE = "tokenizer.chat_template"


class GgufFormat:
    """The ``ModelFormat`` for one ``.gguf`` file, or a directory that holds just one."""

    name = "gguf"

    def matches(self, path: Path) -> bool:
        """By the name or the first bytes of a file, or the names in a directory."""
        try:
            if path.is_dir():
                return bool(_files_in(path))
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
            raise ModelFileError(str(path), f"the directory holds {len(files)} .gguf files; name one file")
        return GgufModelFile(files[0], metadata_only=metadata_only)


def _files_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if _is_named_gguf(path))


def _is_named_gguf(path: Path) -> bool:
    return path.suffix.lower() == ".gguf"


class GgufModelFile:
    """An opened GGUF model: a ``ModelFile``.

    Args:
        metadata_only: see ``ModelFormat.open``.

    Raises:
        ModelFileError: missing, truncated, corrupt or hostile.
        UnsupportedModelError: an architecture or type this build cannot run, or one part of several.
    """

    def __init__(self, path: Path, *, metadata_only: bool = False) -> None:
        self._path = path
        data = map_file(path)
        header = read_header(data, str(path), metadata_only=metadata_only)
        self._size_bytes = max([len(data), *(tensor.offset + tensor.num_bytes for tensor in header.tensors.values())])
        self._metadata = header.metadata
        if self._metadata.integer("split.count", default=1, minimum=0) > 1:
            raise UnsupportedModelError(f"{path}: one part of a model in several files; join them into one file")
        self._tensors = GgufTensors(data, header.tensors, str(path))
        self._chat_template = self._metadata.text(CHAT_TEMPLATE) if CHAT_TEMPLATE in self._metadata else None
        family = read_family(self._metadata)
        self._spec = describe(family, read_numbers(self._metadata, self._tensors, family))
        stored = stored_tensors(self._spec, is_fused=family.is_fused)
        self._weights = StoredWeights(self._tensors, self._spec, stored, ROPE_TENSORS, str(path))

    @property
    def name(self) -> str:
        """The file's name without its extension."""
        return self._path.stem

    @property
    def size_bytes(self) -> int:
        """See ``ModelFile``."""
        return self._size_bytes

    @property
    def fingerprint(self) -> str:
        """See ``ModelFile``."""
        return self._tensors.fingerprint()

    @property
    def spec(self) -> ModelSpec:
        """See ``ModelFile``."""
        return self._spec

    @property
    def weights(self) -> WeightSource:
        """See ``ModelFile``."""
        return self._weights

    @property
    def chat_template(self) -> str | None:
        """See ``ModelFile``."""
        return self._chat_template

    def make_tokenizer(self) -> Tokenizer:
        """See ``ModelFile``."""
        # Tokenizing needs a library of its own, which planning and inspecting a model do without.
        from layerscale_core.tokenizers.gguf import tokenizer_from_gguf  # noqa: PLC0415

        return tokenizer_from_gguf(self._metadata.values, str(self._path))

    def close(self) -> None:
        """See ``ModelFile``."""
        self._tensors.close()
