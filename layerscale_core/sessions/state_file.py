"""The file that holds one session: written whole, and believed only where every byte of it is proven.

Layout, little-endian: magic, version u32, length of the header u64, digest [32]; the header; the pages. The digest is
the BLAKE2b of all before it and of the header. The header is the JSON of ``Header``, which has the size and the digest
of the pages, so that no byte of a file is unproven and none is beyond its end. Digests find damage; they are no
signature: what a file says is checked again before it is used (``check_saved``).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import SavedStateError
from layerscale_core.sessions.plain_data import from_json, to_json
from layerscale_core.sessions.saved_state import Fingerprint, SavedSession

MAGIC = b"LSSESS\r\n"
"""A line end that a transfer as text would change."""
VERSION = 2

MAX_HEADER_BYTES = 256 << 20
"""Entries in the window and in the ring are all in memory when they are read."""

_PREAMBLE = struct.Struct("<8sIQ")
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class PagesInfo:
    """The size of the pages that follow the header, and the digest that proves them."""

    num_pages: int
    page_bytes: int
    digest: str

    @property
    def num_bytes(self) -> int:
        """Bytes of all of them."""
        return self.num_pages * self.page_bytes


@dataclass(frozen=True, slots=True)
class Header:
    """All of a file but its pages."""

    fingerprint: Fingerprint
    pages: PagesInfo
    session: SavedSession


def write_state(file: BinaryIO, fingerprint: Fingerprint, session: SavedSession, pages: NDArray[np.uint8]) -> None:
    """Write a session to an empty file.

    Args:
        pages: [num_pages, page_bytes], as ``Executor.read_pages`` gives them.

    Raises:
        OSError: the file cannot be written.
        SavedStateError: the session has more to say than a file may hold.
    """
    content = np.ascontiguousarray(pages).reshape(-1).data
    info = PagesInfo(pages.shape[0], pages.shape[1], hashlib.blake2b(content).hexdigest())
    header = to_json(Header(fingerprint, info, session))
    if len(header) > MAX_HEADER_BYTES:
        raise SavedStateError(f"its entries take more than {MAX_HEADER_BYTES} bytes")
    preamble = _PREAMBLE.pack(MAGIC, VERSION, len(header))
    file.write(preamble + _digest(preamble, header))
    file.write(header)
    file.write(content)


class StateReader:
    """A file that ``write_state`` wrote, its header read and proven. Memory is taken for no more than the file holds.

    Args:
        file_bytes: its size.

    Raises:
        OSError: the file cannot be read.
        SavedStateError: not such a file, of another version, or damaged.
    """

    def __init__(self, file: BinaryIO, file_bytes: int) -> None:
        self._file = file
        self.header, header_end = _read_header(file, file_bytes)
        pages = self.header.pages
        if min(pages.num_pages, pages.page_bytes) < 0 or header_end + pages.num_bytes != file_bytes:
            raise SavedStateError("it is cut, or goes on behind its end")

    def read_pages(self) -> NDArray[np.uint8]:
        """The pages, [num_pages, page_bytes]. Called once.

        Raises:
            OSError, SavedStateError: as above.
        """
        info = self.header.pages
        content = self._file.read(info.num_bytes)
        if len(content) != info.num_bytes or hashlib.blake2b(content).hexdigest() != info.digest:
            raise SavedStateError("its pages are damaged")
        return np.frombuffer(content, np.uint8).reshape(info.num_pages, info.page_bytes)


def _read_header(file: BinaryIO, file_bytes: int) -> tuple[Header, int]:
    preamble, digest = file.read(_PREAMBLE.size), file.read(_DIGEST_BYTES)
    if len(digest) < _DIGEST_BYTES or not preamble.startswith(MAGIC):
        raise SavedStateError("it is no saved session")
    _, version, header_bytes = _PREAMBLE.unpack(preamble)
    if version != VERSION:
        raise SavedStateError(f"it has version {version} of the format, and this server reads version {VERSION}")
    header_end = _PREAMBLE.size + _DIGEST_BYTES + header_bytes
    if header_bytes > MAX_HEADER_BYTES or header_end > file_bytes:
        raise SavedStateError("it is cut, or its size is wrong")
    text = file.read(header_bytes)
    if _digest(preamble, text) != digest:
        raise SavedStateError("it is damaged")
    try:
        return from_json(Header, text), header_end
    except ValueError as error:
        raise SavedStateError(f"its header is malformed: {error}") from None


def _digest(preamble: bytes, header: bytes) -> bytes:
    return hashlib.blake2b(preamble + header, digest_size=_DIGEST_BYTES).digest()
