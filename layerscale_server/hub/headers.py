"""The headers of weights that stay on the hub: a request is read until its file has said all that a plan needs."""

from __future__ import annotations

from collections.abc import Iterable

from huggingface_hub import get_session, get_token, hf_raise_for_status

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats.gguf.cursor import MAX_HEADER_BYTES
from layerscale_core.formats.gguf.reader import read_header as read_gguf_header
from layerscale_core.formats.safetensors.header import read_header as read_safetensors_header

_FIRST_TRY_BYTES = 2**16
_TIMEOUT_S = 30.0
_GGUF = ".gguf"


def fetch_header(url: str, name: str) -> bytes:
    """The beginning of a file on the hub, its header at least.

    Args:
        name: says which format the file has.
    """
    headers = {"Range": f"bytes=0-{MAX_HEADER_BYTES - 1}", "Accept-Encoding": "identity"}
    if token := get_token():  # which does not follow a redirection to another host
        headers["Authorization"] = f"Bearer {token}"
    session = get_session()
    with session.stream("GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT_S) as response:
        hf_raise_for_status(response)
        return take_header(response.iter_bytes(), name)


def take_header(chunks: Iterable[bytes], name: str) -> bytes:
    """Take from a file as it arrives until its header is whole; no more than a header may have.

    What is no header at all is left for whoever opens the file, to say so.
    """
    data = bytearray()
    next_try = _FIRST_TRY_BYTES
    for chunk in chunks:
        data += chunk
        if len(data) >= MAX_HEADER_BYTES:
            break
        if len(data) >= next_try:
            if _has_header(bytes(data), name):
                break
            next_try = 2 * len(data)
    return bytes(data[:MAX_HEADER_BYTES])


def _has_header(data: bytes, name: str) -> bool:
    read = read_gguf_header if name.endswith(_GGUF) else read_safetensors_header
    try:
        read(data, name, metadata_only=True)
    except UnsupportedModelError:
        return True
    except ModelFileError:
        return False
    return True
