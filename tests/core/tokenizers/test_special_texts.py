from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.tokenizers.special_texts import SpecialTexts


def split_slowly(text: str, ids: dict[str, int]) -> list[tuple[str, int | None]]:
    """The parts, found by trying every token at every place."""
    parts: list[tuple[str, int | None]] = []
    start = position = 0
    while position < len(text):
        token = max((each for each in ids if text.startswith(each, position)), key=len, default=None)
        if token is None:
            position += 1
            continue
        parts.append((text[start:position], ids[token]))
        start = position = position + len(token)
    return [*parts, (text[start:], None)]


@given(st.lists(st.text("<a] \n-", min_size=1, max_size=4), max_size=6, unique=True), st.text("<a] \n-x", max_size=30))
@settings(max_examples=300, deadline=None)
def test_finds_the_leftmost_and_the_longest_token(tokens: list[str], text: str) -> None:
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    assert list(SpecialTexts(ids).split(text)) == split_slowly(text, ids)


def test_goes_on_behind_a_text_that_only_begins_like_a_token() -> None:
    assert list(SpecialTexts({"<s>": 1, "<<s>>": 2}).split("<<s> <s")) == [("<", 1), (" <s", None)]
