"""What identifies a model's weights without reading gigabytes."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable
from typing import Protocol

_SAMPLE_BYTES = 4096


class Placed(Protocol):
    """A tensor's place in its file."""

    @property
    def offset(self) -> int:
        """From the start of the file."""
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        ...


def fingerprint(kind: str, files: Iterable[tuple[mmap.mmap, Iterable[Placed]]], description: bytes = b"") -> str:
    """A digest of each file's size, of its whole header, and of the beginning, middle and end of every tensor.

    Training changes nearly every weight of the tensors that it touches, and quantising changes their types, so that two
    models differ in what is read here. A file in which only a few bytes were changed on purpose need not.

    Args:
        kind: the format's name.
        files: with their tensors; in an order that does not depend on where they lie.
        description: what is said of the model outside of these files.
    """
    digest = hashlib.blake2b(digest_size=16)
    for data, tensors in files:
        _add_file(digest, data, sorted(tensors, key=lambda tensor: tensor.offset))
    digest.update(description)
    return f"{kind} {digest.hexdigest()}"


def _add_file(digest: hashlib.blake2b, data: mmap.mmap, tensors: list[Placed]) -> None:
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data[: tensors[0].offset if tensors else len(data)])
    for tensor in tensors:
        last = max(0, tensor.num_bytes - _SAMPLE_BYTES)
        for start in (0, last // 2, last):
            digest.update(data[tensor.offset + start : tensor.offset + min(start + _SAMPLE_BYTES, tensor.num_bytes)])
