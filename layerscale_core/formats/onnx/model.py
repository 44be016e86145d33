"""A folder with ``config.json`` and an ONNX graph as a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import ModelFileError
from layerscale_core.formats.files import check_path, map_file
from layerscale_core.formats.fingerprint import fingerprint
from layerscale_core.formats.onnx.decoder import Decoder, read_decoder
from layerscale_core.formats.onnx.graph import StoredTensor, read_graph
from layerscale_core.formats.onnx.protobuf import WireFile
from layerscale_core.formats.safetensors.config import CONFIG_FILE, read_config, read_numbers
from layerscale_core.formats.safetensors.tensors import INDEX_FILE, WHOLE_FILE
from layerscale_core.formats.safetensors.text import read_chat_template, read_tokenizer
from layerscale_core.models import Matrix
from layerscale_core.models.describe import describe
from layerscale_core.specs.model_format import ModelFile, WeightSource
from layerscale_core.specs.tokenizer import Tokenizer

GRAPH_FILE = "model.onnx"
SUBFOLDER = "onnx"
_SUFFIX = ".onnx"


class OnnxFormat:
    """The ``ModelFormat`` for a decoder that Optimum or Hugging Face's libraries exported.

    A folder with ``model.onnx`` in it or in its folder ``onnx``, or one of several graphs there by its name. A folder
    that has safetensors too is not taken: whoever wants its graph names the file.
    """

    name = "onnx"

    def matches(self, path: Path) -> bool:
        """A file of that suffix, or a folder with a graph and no other weights."""
        try:
            if path.is_file():
                return path.suffix == _SUFFIX
            others = any((path / name).exists() for name in (WHOLE_FILE, INDEX_FILE))
            return not others and _graph_in(path) is not None
        except (OSError, ValueError):
            return False

    def open(self, path: Path, *, metadata_only: bool = False) -> ModelFile:
        """See ``ModelFormat``. Weights within the graph's own file cannot be missing from it."""
        check_path(path)
        graph = path if path.is_file() else _graph_in(path)
        if graph is None:
            raise ModelFileError(str(path), f"there is no {GRAPH_FILE} in it")
        return OnnxModelFile(path, graph, metadata_only=metadata_only)


class OnnxModelFile:
    """An opened graph: a ``ModelFile``, whose attributes are those of the protocol, and the decoder that it is.

    Raises:
        ModelFileError: a file is missing, truncated, corrupt or hostile.
        UnsupportedModelError: a family, or a graph, that this build cannot run.
    """

    def __init__(self, path: Path, graph: Path, *, metadata_only: bool = False) -> None:
        self._path = path
        self.graph_path = graph
        folder = graph.parent
        in_subfolder = folder.resolve().name == SUBFOLDER and not (folder / CONFIG_FILE).exists()
        self._folder = folder.resolve().parent if in_subfolder else folder
        self._config, family = read_config(self._folder)
        self.spec = describe(family, read_numbers(self._config, family))
        self.chat_template = read_chat_template(self._folder)
        self._tensors: dict[str | None, list[StoredTensor]] = defaultdict(list)
        self._data = map_file(graph)
        try:
            read = read_graph(WireFile(self._data, str(graph)).root)
            for tensor in read.tensors:
                self._tensors[tensor.file].append(tensor)
            self.decoder: Decoder = read_decoder(read, self.spec, str(graph))
            if not metadata_only:
                self._check_files()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The folder's name, or the file's without its suffix."""
        return self._path.stem if self._path.is_file() else self._path.resolve().name

    @property
    def size_bytes(self) -> int:
        """See ``ModelFile``."""
        ends = [max(tensor.offset + tensor.num_bytes for tensor in self._tensors[file]) for file in self._other_files]
        return len(self._data) + sum(ends)

    @property
    def weights_bytes(self) -> int:
        """What a runtime takes for the tensors: twice those in the graph's own file, which it reads and then packs."""
        return sum(
            tensor.num_bytes * (2 if file is None else 1)
            for file, tensors in self._tensors.items()
            for tensor in tensors
        )

    @property
    def fingerprint(self) -> str:
        """See ``ModelFile``."""
        description = repr(sorted(self._config.values.items())).encode("utf-8", "replace")
        files = [(map_file(self.graph_path.parent / file), self._tensors[file]) for file in self._other_files]
        try:
            return fingerprint("onnx", [(self._data, self._tensors[None]), *files], description)
        finally:
            for data, _ in files:
                data.close()

    @property
    def weights(self) -> WeightSource:
        """None of its own: they are part of the graph."""
        return _NoWeights()

    def make_tokenizer(self) -> Tokenizer:
        """See ``ModelFile``."""
        return read_tokenizer(self._folder, self._config, self.spec.vocab_size)

    def close(self) -> None:
        """See ``ModelFile``."""
        self._data.close()

    @property
    def _other_files(self) -> list[str]:
        """The files beside the graph's that hold tensors, by name."""
        return sorted(file for file in self._tensors if file is not None)

    def _check_files(self) -> None:
        """Refuse files of tensors that are missing or end too early."""
        for file in self._other_files:
            path = self.graph_path.parent / file
            check_path(path)
            num_bytes = path.stat().st_size
            for tensor in self._tensors[file]:
                if tensor.offset + tensor.num_bytes > num_bytes:
                    reason = f"it has {num_bytes:,} bytes, a tensor ends at {tensor.offset + tensor.num_bytes:,}"
                    raise ModelFileError(str(path), reason, field=tensor.name[:80], offset=tensor.offset)


class _NoWeights:
    """A ``WeightSource`` without any."""

    def names(self) -> Sequence[str]:
        """None."""
        return ()

    def shape(self, name: str) -> NoReturn:
        """KeyError."""
        raise KeyError(name)

    def stored_bytes(self, name: str) -> int:
        """KeyError."""
        raise KeyError(name)

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:  # noqa: ARG002
        """KeyError."""
        raise KeyError(name)

    def vector(self, name: str) -> NDArray[np.float32]:
        """KeyError."""
        raise KeyError(name)

    def drop_cache(self) -> None:
        """Nothing is cached."""


def _graph_in(folder: Path) -> Path | None:
    candidates = (folder / GRAPH_FILE, folder / SUBFOLDER / GRAPH_FILE)
    return next((path for path in candidates if path.is_file()), None)
