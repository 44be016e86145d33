"""What identifies the weights of a GGUF file without reading gigabytes."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable

from layerscale_core.formats.gguf.reader import TensorInfo

_SAMPLE_BYTES = 4096


def fingerprint(data: mmap.mmap, tensors: Iterable[TensorInfo]) -> str:
    """A digest of the file's size, of its whole header, and of the beginning, middle and end of every tensor.

    Training changes nearly every weight of the tensors that it touches, and quantising changes their types, so that two
    models differ in what is read here. A file in which only a few bytes were changed on purpose need not.
    """
    tensors = sorted(tensors, key=lambda tensor: tensor.offset)
    header_end = tensors[0].offset if tensors else len(data)
    digest = hashlib.blake2b(len(data).to_bytes(8, "little"), digest_size=16)
    digest.update(data[:header_end])
    for tensor in tensors:
        last = max(0, tensor.num_bytes - _SAMPLE_BYTES)
        for start in (0, last // 2, last):
            digest.update(data[tensor.offset + start : tensor.offset + min(start + _SAMPLE_BYTES, tensor.num_bytes)])
    return f"gguf {digest.hexdigest()}"
