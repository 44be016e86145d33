"""Texts and pieces of bytes that are kept packed."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.texts import PackedBytes, Texts
from tests.support.memory import kept_by

PIECES = st.lists(st.binary(max_size=6), max_size=8)


def as_text(piece: bytes) -> str:
    return piece.decode("utf-8", "surrogateescape")


@given(PIECES, st.slices(8))
@settings(max_examples=100, deadline=None)
def test_are_the_pieces_that_they_were_made_of(pieces: list[bytes], part: slice) -> None:
    packed = PackedBytes(pieces)
    assert list(packed) == pieces
    assert packed[part] == pieces[part]
    assert [packed[-1 - index] for index in range(len(packed))] == pieces[::-1]
    assert packed.lengths.tolist() == [*map(len, pieces)]
    assert [packed.data[start:] for start in packed.starts] == [b"".join(pieces[n:]) for n in range(len(pieces))]
    start, stop, _ = slice(part.start, part.stop).indices(len(pieces))
    assert packed.joined(start, max(start, stop)) == b"".join(pieces[start:stop])


@given(PIECES, st.slices(8))
@settings(max_examples=100, deadline=None)
def test_texts_keep_bytes_that_are_not_utf8(pieces: list[bytes], part: slice) -> None:
    strings = [*map(as_text, pieces)]
    texts = Texts.of(strings)
    assert list(texts) == strings
    assert texts[part] == strings[part]
    assert [texts[index] for index in range(len(texts))] == strings
    assert list(texts.encoded) == pieces


@given(st.lists(st.one_of(st.binary(max_size=3), st.text(max_size=2).map(str.encode)), max_size=4))
@settings(max_examples=200, deadline=None)
def test_are_unicode_where_each_of_them_is(pieces: list[bytes]) -> None:
    def is_unicode(piece: bytes) -> bool:
        return not any("\udc80" <= char <= "\udcff" for char in as_text(piece))

    assert Texts(PackedBytes(pieces)).are_unicode() == all(map(is_unicode, pieces))


def test_a_character_cut_in_two_is_in_neither_text() -> None:
    assert not Texts(PackedBytes([b"a\xc3", b"", b"\xbc"])).are_unicode()


def test_end_where_the_strings_ended() -> None:
    with pytest.raises(IndexError):
        Texts.of(["a", ""])[2]


def test_take_little_more_than_their_bytes() -> None:
    strings = [f"token {number}" for number in range(10_000)]
    texts, kept = kept_by(lambda: Texts.of(strings))
    assert len(texts) == len(strings)
    assert kept < sum(map(sys.getsizeof, strings)) / 3
