"""Texts found among many by their hashes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.texts import Texts
from layerscale_core.tokenizers import text_index
from layerscale_core.tokenizers.text_index import TextIndex

STRINGS = st.lists(st.text("ab", max_size=3), max_size=12)


@pytest.fixture(params=["hashes", "hashes that are all the same"])
def _hashes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "hashes":
        monkeypatch.setattr(text_index, "hash", lambda data: 7, raising=False)


@pytest.mark.usefixtures("_hashes")
@given(STRINGS)
@settings(max_examples=60, deadline=None)
def test_finds_the_first_of_equal_texts(strings: list[str]) -> None:
    index = TextIndex(Texts.of(strings))
    for text in [*strings, "c"]:
        assert index.get(text) == (strings.index(text) if text in strings else None)


@pytest.mark.usefixtures("_hashes")
@given(STRINGS)
@settings(max_examples=60, deadline=None)
def test_finds_a_text_that_is_there_twice_unless_it_is_empty(strings: list[str]) -> None:
    found = TextIndex(Texts.of(strings)).find_repeated()
    if found is None:
        texts = [text for text in strings if text]
        assert len(set(texts)) == len(texts)
    else:
        first, second = found
        assert first < second
        assert strings[first] == strings[second] != ""
