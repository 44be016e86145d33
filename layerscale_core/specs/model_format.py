"""Model files: what a format plugin returns for a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from layerscale_core.models import Matrix, ModelSpec
from layerscale_core.specs.tokenizer import Tokenizer


class WeightSource(Protocol):
    """A model's weights by canonical name (``layerscale_core.models.spec``), read on demand from the file."""

    def names(self) -> Sequence[str]:
        """Every weight the file holds for the model; none where they are part of a program (``ModelFile.weights``)."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """[rows, cols] of a matrix, [n] of a vector."""
        ...

    def stored_bytes(self, name: str) -> int:
        """Bytes on disk."""
        ...

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        """Rows ``[start, stop)`` of a matrix in an internal layout, freshly allocated.

        No rows at all show the layout, and touch nothing of the file.

        Raises:
            KeyError: no such weight.
        """
        ...

    def vector(self, name: str) -> NDArray[np.float32]:
        """A vector as float32 [n]."""
        ...

    def drop_cache(self) -> None:
        """Let the system forget the pages of the file that were read, so that they do not count as resident."""
        ...


class ModelFile(Protocol):
    """An opened model: metadata checked, no weight read yet."""

    @property
    def name(self) -> str:
        """The model's id when the user gave none: the file's or directory's name without extension."""
        ...

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, all parts."""
        ...

    @property
    def fingerprint(self) -> str:
        """What identifies the weights: equal for a copy of the file, another for another model.

        Found in a fraction of a second, whatever the size, so that it need not notice a change of single weights. It
        is not asked for where only the metadata was read.
        """
        ...

    @property
    def spec(self) -> ModelSpec:
        """What the model is."""
        ...

    @property
    def weights(self) -> WeightSource:
        """Its weights; a source without any where the file holds a program that its own backend runs."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of its chat template."""
        ...

    def make_tokenizer(self) -> Tokenizer:
        """Build its tokenizer.

        Raises:
            ModelFileError: its tables are inconsistent.
            UnsupportedModelError: a kind of tokenizer this build does not have.
        """
        ...

    def close(self) -> None:
        """Unmap the file. Idempotent."""
        ...


class ModelFormat(Protocol):
    """One kind of model file."""

    @property
    def name(self) -> str:
        """The format's name, e.g. ``gguf``."""
        ...

    def matches(self, path: Path) -> bool:
        """Whether this looks like the format: by name or first bytes. Never raises."""
        ...

    def open(self, path: Path, *, metadata_only: bool = False) -> ModelFile:
        """Read and check the metadata.

        Args:
            metadata_only: the weights are never read and may be missing from the file. Sizes are then those of the
                whole model; numbers that stand among the weights, such as factors of a rotation, are left at 1.

        Raises:
            ModelFileError: missing, truncated, corrupt or hostile; names field and offset.
            UnsupportedModelError: an architecture or type this build cannot run.
        """
        ...
