"""What stood somewhere before is found again, and what followed it is proposed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.engine.prompt_lookup import RUN_LEN, PromptLookup

MOST_TOKENS = 200


def draft(tokens: Sequence[int], num_tokens: int, history: Sequence[int] = ()) -> list[int]:
    return PromptLookup(history, MOST_TOKENS).draft(tokens, num_tokens)


def test_what_followed_is_proposed() -> None:
    assert draft([1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4], 3) == [5, 6, 7]


def test_the_history_counts_as_before() -> None:
    assert draft([3, 4], 2, history=[1, 2, 3, 4, 5, 6, 7, 1, 2]) == [5, 6]


@pytest.mark.parametrize("tokens", [[], [1], [1, 2, 3, 4], [1, 2, 3, 9, 1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9], [0] * 4])
def test_nothing_is_proposed_where_nothing_recurs(tokens: list[int]) -> None:
    assert draft(tokens, 5) == []


def test_the_newest_of_equal_places_is_taken() -> None:
    assert draft([1, 2, 3, 4, 8, 1, 2, 3, 4, 9, 1, 2, 3, 4], 1) == [9]


def test_a_place_is_followed_as_long_as_the_text_goes_on_as_there() -> None:
    old, new = [1, 2, 3, 4, 5, 6, 7, 8, 9], [5, 6, 7, 8, 0]
    lookup, text = PromptLookup([*old, *new], MOST_TOKENS), [1, 2, 3, 4]
    for token_id in (5, 6, 7, 8, 9):
        assert lookup.draft(text, 1) == [token_id], "the newer place of 5, 6, 7, 8 was followed by another token"
        text.append(token_id)
    assert PromptLookup([*old, *new], MOST_TOKENS).draft(text[:-1], 1) == [0]


def test_after_a_place_that_led_astray_another_is_looked_for() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 20, 21, 22, 23, 24], MOST_TOKENS)
    assert lookup.draft([1, 2, 3, 4], 2) == [5, 6]
    assert lookup.draft([1, 2, 3, 4, 20], 2) == []
    assert lookup.draft([1, 2, 3, 4, 20, 21, 22, 23], 1) == [24]


def test_a_period_shorter_than_the_draft_goes_round() -> None:
    assert draft([7, 8, 9, 7, 8, 9, 7], 7) == [8, 9, 7, 8, 9, 7, 8]
    assert draft([5] * 5, 4) == [5] * 4


def test_memory_does_not_grow_beyond_bounds_and_the_newest_is_found() -> None:
    history = random.Random(0).choices(range(100_000), k=300_000)
    lookup = PromptLookup(history, 400_000)
    assert lookup.draft(history[-50:-40], 5) == history[-40:-35]
    assert lookup.num_bytes == 4 << 16


@given(
    st.lists(st.integers(0, 3), max_size=60),
    st.lists(st.integers(0, 3), max_size=60),
    st.lists(st.integers(1, 40), max_size=20),
    st.integers(1, 20),
)
@settings(max_examples=200, deadline=None)
def test_every_draft_is_what_followed_the_same_tokens(
    history: list[int], tokens: list[int], growth: list[int], num_tokens: int
) -> None:
    lookup, held = PromptLookup(history, MOST_TOKENS), [*history, *tokens]
    stops = sorted({min(stop, len(tokens)) for stop in growth} | {len(tokens)})
    for stop in stops:
        known = held[: len(history) + stop]
        found = lookup.draft(tokens[:stop], num_tokens)
        if found:
            assert found in [continuation(known, place, num_tokens) for place in places(known)]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=150), st.data())
@settings(max_examples=100, deadline=None)
def test_it_does_not_matter_how_many_tokens_come_at_once(tokens: list[int], data: st.DataObject) -> None:
    stops = [*sorted(data.draw(st.lists(st.integers(0, len(tokens)), max_size=5))), len(tokens)]
    one_by_one, in_chunks = PromptLookup((), MOST_TOKENS), PromptLookup((), MOST_TOKENS)
    for stop in range(len(tokens)):
        one_by_one.draft(tokens[:stop], 0)
    for stop in stops[:-1]:
        in_chunks.draft(tokens[:stop], 0)
    fresh = tokens[-RUN_LEN - 1 :]
    for lookup in (one_by_one, in_chunks):  # a run that never was makes both look anew
        lookup.draft([*tokens, -1], 0)
    assert one_by_one.draft([*tokens, -1, *fresh], 9) == in_chunks.draft([*tokens, -1, *fresh], 9)


def places(known: list[int]) -> list[int]:
    """Where the last tokens ended before."""
    return [end for end in range(RUN_LEN, len(known)) if known[end - RUN_LEN : end] == known[-RUN_LEN:]]


def continuation(known: list[int], place: int, num_tokens: int) -> list[int]:
    copied = list(known)
    for index in range(num_tokens):
        copied.append(copied[place + index])
    return copied[len(known) :]
