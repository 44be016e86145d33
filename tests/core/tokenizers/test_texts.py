"""Texts that are kept packed."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.tokenizers.texts import Texts
from tests.support.memory import kept_by


@given(st.lists(st.text(st.characters(), max_size=6), max_size=8), st.slices(8))
@settings(max_examples=100, deadline=None)
def test_are_the_strings_that_they_were_made_of(strings: list[str], part: slice) -> None:
    texts = Texts(strings)
    assert list(texts) == strings
    assert texts[part] == strings[part]
    assert [texts[-1 - index] for index in range(len(texts))] == strings[::-1]


def test_end_where_the_strings_ended() -> None:
    with pytest.raises(IndexError):
        Texts(["a", ""])[2]


def test_take_little_more_than_their_bytes() -> None:
    strings = [f"token {number}" for number in range(10_000)]
    texts, kept = kept_by(lambda: Texts(strings))
    assert len(texts) == len(strings)
    assert kept < sum(map(sys.getsizeof, strings)) / 3
