"""How a model on the hub is named on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_REFERENCE = re.compile(
    rf"(?P<repo_id>{_NAME}/{_NAME})"
    rf"(?:@(?P<revision>refs/pr/\d+|{_NAME}))?"
    rf"(?:[:/](?P<file>[^\\]+\.(?:gguf|onnx))|:(?P<quantization>{_NAME}))?"
)
_MAX_REPO_ID_LEN = 96


@dataclass(frozen=True, slots=True)
class ModelReference:
    """``org/name``, with what narrows it: ``org/name[@revision][:QUANTIZATION | /file.gguf | /file.onnx]``.

    Attributes:
        revision: branch, tag or commit; None = the repository's main branch.
        quantization: a type that a file name carries, e.g. ``Q4_K_M``; case does not matter.
        file: path of a file inside the repository; it may also be written after a colon.
    """

    repo_id: str
    revision: str | None = None
    quantization: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelReference | None:
        """Read a reference; None when the text is not one, as every usual spelling of a path is not."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            return None
        repo_id: str = match["repo_id"]
        looks_like_path = repo_id.endswith((".gguf", ".onnx", ".git")) or ".." in repo_id or "--" in repo_id
        if looks_like_path or len(repo_id) > _MAX_REPO_ID_LEN:
            return None
        return cls(repo_id, match["revision"], match["quantization"], match["file"])

    @property
    def names_gguf(self) -> bool:
        """Whether one of the repository's GGUF models is asked for, rather than the repository's model."""
        return self.quantization is not None or (self.file is not None and not self.names_graph)

    @property
    def names_graph(self) -> bool:
        """Whether one of the repository's ONNX graphs is."""
        return self.file is not None and self.file.endswith(".onnx")

    def __str__(self) -> str:
        at_revision = f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id
        if self.quantization:
            return f"{at_revision}:{self.quantization}"
        return f"{at_revision}/{self.file}" if self.file else at_revision
