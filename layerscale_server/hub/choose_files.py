"""Which of a repository's files to fetch: those of one model, and no other."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from layerscale_core.errors import ModelNotFoundError
from layerscale_core.formats.safetensors.config import CONFIG_FILE
from layerscale_core.formats.safetensors.tensors import INDEX_FILE, WHOLE_FILE, read_index
from layerscale_core.formats.safetensors.text import (
    GENERATION_CONFIG_FILE,
    TEMPLATE_FILE,
    TEMPLATE_JSON_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
)
from layerscale_server.hub.choose_gguf import choose_gguf, gguf_models
from layerscale_server.hub.choose_graph import choose_graph
from layerscale_server.hub.reference import ModelReference

TEXT_FILES = (
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    "special_tokens_map.json",
    TEMPLATE_FILE,
    TEMPLATE_JSON_FILE,
    INDEX_FILE,
)
"""What a folder holds beside its weights, as far as a model needs it."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, slots=True)
class Choice:
    """The files of one model.

    Attributes:
        texts: those of a folder that are not its weights; a GGUF model has none, since it says everything itself.
        weights: in order; of a graph the files beside it.
        graph: the ONNX graph to open; one of the texts, since nothing is known of it before it is there.
    """

    texts: tuple[str, ...]
    weights: tuple[str, ...]
    graph: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """All of them, weights last."""
        return (*self.texts, *self.weights)

    @property
    def described_by(self) -> tuple[str, ...]:
        """What is needed beside headers to know how large the model is."""
        return tuple(name for name in self.texts if name != TOKENIZER_FILE)

    @property
    def with_headers(self) -> tuple[str, ...]:
        """Weights whose beginnings say what is in them."""
        return () if self.graph else self.weights

    def opened(self, first: Path) -> Path:
        """The path to open, from where the first file lies: the graph, the folder, or that file."""
        if self.graph:
            return first.parent / self.graph
        return first.parent if self.texts else first


def choose_files(names: Collection[str], reference: ModelReference, read: Callable[[str], Path]) -> Choice:
    """Choose from a repository's file names.

    A repository's model is its safetensors, as its publisher saved it; a GGUF file beside them is taken when it is
    named, and where there are no safetensors; an ONNX graph when it is named, and where there is neither.

    Args:
        read: where one of the repository's files can be read; asked for the index of a model in several files.

    Raises:
        ModelNotFoundError: nothing fits, or several files do; the line lists the choices.
        ModelFileError: the index is corrupt.
    """
    if reference.names_graph:
        return _choose_graph(names, reference)
    has_folder = CONFIG_FILE in names and (WHOLE_FILE in names or INDEX_FILE in names)
    if has_folder and not reference.names_gguf:
        return _choose_folder(names, reference, read)
    if gguf_models(names) or reference.file is not None:
        return Choice((), choose_gguf(names, reference))
    if reference.quantization is None and CONFIG_FILE in names and choose_graph(names, reference):
        return _choose_graph(names, reference)
    problem = f"{reference.repo_id} has no GGUF file to serve"
    if has_folder:
        raise ModelNotFoundError(f"{problem}; {reference.repo_id} alone names its safetensors")
    problem += f", and no {CONFIG_FILE} with {WHOLE_FILE} or an ONNX graph"
    if any(name.endswith(_PICKLES) for name in names):
        problem += " (its weights are pickles, which could execute code and are never opened)"
    raise ModelNotFoundError(f"{problem}; choose a repository that has one of these")


def _choose_graph(names: Collection[str], reference: ModelReference) -> Choice:
    chosen = choose_graph(names, reference)
    assert chosen is not None
    graph, weights = chosen
    texts = (name for name in _texts(names, reference) if name != INDEX_FILE)
    return Choice((*texts, graph), weights, graph)


def _texts(names: Collection[str], reference: ModelReference) -> list[str]:
    for name in (CONFIG_FILE, TOKENIZER_FILE):
        if name not in names:
            raise ModelNotFoundError(f"{reference.repo_id} has no {name}; choose a repository that has one")
    return [name for name in TEXT_FILES if name in names]


def _choose_folder(names: Collection[str], reference: ModelReference, read: Callable[[str], Path]) -> Choice:
    texts = _texts(names, reference)
    weights = sorted(set(read_index(read(INDEX_FILE).parent).values())) if INDEX_FILE in names else [WHOLE_FILE]
    missing = [name for name in weights if name not in names]
    if missing:
        raise ModelNotFoundError(f"{reference.repo_id} lacks {missing[0]}, one of {len(weights)} files of its weights")
    return Choice(tuple(texts), tuple(weights))
