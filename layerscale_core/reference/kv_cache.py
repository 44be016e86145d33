"""The KV cache in plain numpy: every page of every layer, as its codecs write it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerscale_core.reference.arrays import Bytes, Floats
from layerscale_core.reference.kv_codecs import KVCodec


@dataclass(frozen=True, slots=True)
class PagedKV:
    """The KV cache: keys and values as their codecs write them, [num_layers, num_slots, num_kv_heads, num_bytes]."""

    keys: Bytes
    values: Bytes
    key_codec: KVCodec
    value_codec: KVCodec
    page_size: int

    def pages(self) -> tuple[Bytes, Bytes]:
        """Views of keys and values [num_layers, num_pages, page_size, num_kv_heads, num_bytes]."""
        keys, values = (
            part.reshape(part.shape[0], -1, self.page_size, *part.shape[2:]) for part in (self.keys, self.values)
        )
        return keys, values

    def read(self, layer: int, slots: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """A layer's keys and values in some slots, [num_slots, num_kv_heads, head_dim]."""
        return self.key_codec.decode(self.keys[layer, slots]), self.value_codec.decode(self.values[layer, slots])

    def write(self, layer: int, slots: NDArray[np.int64], keys: Floats, values: Floats) -> None:
        """Put keys and values into slots, in place."""
        self.keys[layer, slots] = self.key_codec.encode(keys)
        self.values[layer, slots] = self.value_codec.encode(values)

    def read_pages(self, page_ids: NDArray[np.int32]) -> Bytes:
        """Each page's keys of all layers, then its values: [num_pages, num_bytes]."""
        return np.concatenate(
            [pages[:, page_ids].swapaxes(0, 1).reshape(len(page_ids), -1) for pages in self.pages()], axis=1
        )

    def write_pages(self, page_ids: NDArray[np.int32], content: Bytes) -> None:
        """Put back what ``read_pages`` gave.

        Raises:
            ValueError: it is not the content of so many pages; nothing is changed.
        """
        keys, values = self.pages()
        num_key_bytes, num_value_bytes = (pages[:, 0].size for pages in (keys, values))
        if content.shape != (len(page_ids), num_key_bytes + num_value_bytes):
            raise ValueError(f"{content.shape} bytes are not the content of {len(page_ids)} pages")
        for pages, part in zip((keys, values), np.split(content, [num_key_bytes], axis=1), strict=True):
            pages[:, page_ids] = part.reshape(len(page_ids), pages.shape[0], *pages.shape[2:]).swapaxes(0, 1)


def context_slots(page_ranges: NDArray[np.int32], page_size: int) -> NDArray[np.int64]:
    """The valid slots of a sequence, in order."""
    return np.concatenate(
        [np.arange(start, stop, dtype=np.int64) + int(page_id) * page_size for page_id, start, stop in page_ranges]
    )
