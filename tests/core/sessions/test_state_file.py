"""What is written is read again; nothing else is."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.errors import SavedStateError
from layerscale_core.sessions.saved_state import SavedSession, check_saved
from layerscale_core.sessions.state_file import MAGIC, VERSION, Header, StateReader, write_state
from tests.support.saved_sessions import FINGERPRINT, VOCAB_SIZE, make_pages, make_saved

PREAMBLE_BYTES = 8 + 4 + 8 + 32


def written() -> bytes:
    file = io.BytesIO()
    write_state(file, FINGERPRINT, make_saved(), make_pages())
    return file.getvalue()


def load(content: bytes) -> tuple[Header, np.ndarray[Any, np.dtype[np.uint8]]]:
    """All that a server reads of a file, and all that it checks without knowing its own layout."""
    reader = StateReader(io.BytesIO(content), len(content))
    check_saved(reader.header.session, vocab_size=VOCAB_SIZE)
    return reader.header, reader.read_pages()


def forged(header: bytes, pages: bytes = b"", *, version: int = VERSION, magic: bytes = MAGIC) -> bytes:
    """A file with right digests, whatever it says."""
    preamble = struct.pack("<8sIQ", magic, version, len(header))
    return preamble + hashlib.blake2b(preamble + header, digest_size=32).digest() + header + pages


def header_of(content: bytes) -> dict[str, Any]:
    (header_bytes,) = struct.unpack_from("<Q", content, 12)
    header = json.loads(content[PREAMBLE_BYTES : PREAMBLE_BYTES + header_bytes])
    assert isinstance(header, dict)
    return header


def with_header(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The good file with a changed header, its digest made anew."""
    header = header_of(written())
    change(header)
    return forged(json.dumps(header).encode(), make_pages().tobytes())


def test_reads_what_was_written() -> None:
    header, pages = load(written())
    assert header.fingerprint == FINGERPRINT
    assert header.session == make_saved()
    np.testing.assert_array_equal(pages, make_pages())


def test_a_session_without_pages_is_read_too() -> None:
    file = io.BytesIO()
    write_state(file, FINGERPRINT, make_saved(), np.empty((0, 0), np.uint8))
    assert load(file.getvalue())[1].size == 0


def test_refuses_every_truncation_and_what_goes_on_behind_the_end() -> None:
    content = written()
    for length in range(len(content)):
        with pytest.raises(SavedStateError):
            load(content[:length])
    with pytest.raises(SavedStateError):
        load(content + b"\0")


def test_refuses_ten_thousand_damaged_files() -> None:
    content, chance = written(), random.Random(7)
    for _ in range(10_000):
        damaged = bytearray(content)
        match chance.randrange(4):
            case 0:
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            case 1:  # a length or a count that is none
                offset = chance.randrange(PREAMBLE_BYTES)
                damaged[offset : offset + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
            case 2:
                start = chance.randrange(len(damaged))
                del damaged[start : start + chance.randint(1, 64)]
            case _:
                start, source = chance.randrange(len(damaged)), chance.randrange(len(damaged))
                damaged[start : start + 16] = content[source : source + 16]
        if damaged == content:
            continue
        with pytest.raises(SavedStateError):
            load(bytes(damaged))


def test_a_forged_header_is_refused_or_harmless() -> None:
    """With right digests, any damage to the JSON ends in a refusal, or in a state that a session can be in."""
    content, chance = written(), random.Random(8)
    text = json.dumps(header_of(content)).encode()
    num_refused = 0
    for _ in range(2_000):
        damaged = bytearray(text)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.choice(b'0129-.,:"[]{}eEnu\\ \xff')
        try:
            header, _ = load(forged(bytes(damaged), make_pages().tobytes()))
        except SavedStateError:
            num_refused += 1
        else:
            assert isinstance(header.session, SavedSession)
    assert num_refused > 1_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no saved session"),
        (b"GGUF" * 100, "no saved session"),
        (forged(b"{}", version=VERSION + 1), f"version {VERSION + 1} of the format"),
        (forged(b"{}"), "header is malformed"),
        (forged(b"[" * 100_000), "nested too deeply"),
        (forged(b'{"pages":1,"pages":1}'), "occurs twice"),
        (forged(b"\xff"), "header is malformed"),
        (struct.pack("<8sIQ", MAGIC, VERSION, 2**63) + bytes(64), "size is wrong"),
    ],
)
def test_says_what_is_wrong_with_a_file(content: bytes, reason: str) -> None:
    with pytest.raises(SavedStateError, match=reason):
        load(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.update(more=1),
        lambda header: header["session"].pop("revision"),
        lambda header: header["session"].update(revision=True),
        lambda header: header["session"].update(revision=2**63),
        lambda header: header["session"].update(revision="5"),
        lambda header: header["session"].update(entries={}),
        lambda header: header["session"]["context"].update(data_start=1.0),
        lambda header: header["session"]["flash"][0]["answer"].update(confidence=float("nan")),
        lambda header: header["session"]["flash"][0]["answer"].update(confidence=float("inf")),
        lambda header: header["session"]["flash"][0].update(query="\ud800"),
        lambda header: header["session"]["entries"][0].update(sym="\udc00"),
        lambda header: header["pages"].update(num_pages=-6, page_bytes=-64),
        lambda header: header["pages"].update(num_pages=2**62, page_bytes=2**62),
    ],
)
def test_refuses_a_forged_header_of_another_shape(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(SavedStateError):
        load(with_header(change))


CONTEXT_CHANGES: list[dict[str, Any]] = [
    {"tokens": (VOCAB_SIZE, *range(41, 60))},
    {"tokens": (-1, *range(41, 60))},
    {"prefix_end": 7},
    {"prefix_end": -1},
    {"durable_end": 15},
    {"durable_end": 21},
    {"num_computed": 21},
    {"num_computed": -1},
    {"gap": 237},
    {"gap": -1},
    {"context_len": 26},
    {"data_start": 17},
    {"data_start": None},
    {"data_offset": None},
    {"data_offset": -1},
    {"num_computed": 6},
    {"window": ()},
]


@pytest.mark.parametrize("change", CONTEXT_CHANGES, ids=str)
def test_refuses_a_context_that_cannot_be(change: dict[str, Any]) -> None:
    saved = make_saved()
    check_saved(saved, vocab_size=VOCAB_SIZE)
    wrong = dataclasses.replace(saved, context=dataclasses.replace(saved.context, **change))
    with pytest.raises(SavedStateError):
        check_saved(wrong, vocab_size=VOCAB_SIZE)


SESSION_CHANGES: list[dict[str, Any]] = [
    {"entries": make_saved().entries[:1]},
    {"waiting": ()},
    {"window_size": 0},
    {"created_at": -1},
    {"last_used_at": 2**62},
    {"data_version": 6},
    {"data_version": 2},
    {"revision": 3},
    {"counts": dataclasses.replace(make_saved().counts, items_processed=4)},
    {"counts": dataclasses.replace(make_saved().counts, num_in_flight=1)},
    {"counts": dataclasses.replace(make_saved().counts, total_dropped=-1)},
    {"last_flash_id": 3},
    {"flash": make_saved().flash * 11},
    {"flash": make_saved().flash[::-1]},
    {"flash": (dataclasses.replace(make_saved().flash[0], token_ids=(VOCAB_SIZE,)),)},
    {"flash": (dataclasses.replace(make_saved().flash[0], max_tokens=0),)},
    {"num_evaluations": -1},
]


@pytest.mark.parametrize("change", SESSION_CHANGES, ids=lambda change: next(iter(change)))
def test_refuses_a_session_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(SavedStateError):
        check_saved(dataclasses.replace(make_saved(), **change), vocab_size=VOCAB_SIZE)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_noise_is_no_session(noise: bytes) -> None:
    for content in (noise, MAGIC + noise, forged(noise)):
        with pytest.raises(SavedStateError):
            load(content)
