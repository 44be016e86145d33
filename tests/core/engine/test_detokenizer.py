from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.engine.detokenizer import IncrementalDetokenizer
from tests.support.fake_tokenizer import ByteTokenizer


class PieceTokenizer:
    """Token ``i`` is the ``i``-th piece of bytes."""

    bos_id = None
    eos_id = None
    stop_ids: frozenset[int] = frozenset()

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces
        self.vocab_size = len(pieces)

    def token_bytes(self, token_id: int) -> bytes:
        return self.pieces[token_id]

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        raise NotImplementedError

    def token_text(self, token_id: int) -> str:
        raise NotImplementedError

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        raise NotImplementedError


def shown(pieces: Sequence[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], str | None]:
    """What each push and the final flush return, and the stop text."""
    detokenizer = IncrementalDetokenizer(PieceTokenizer(pieces), stop)
    texts = [detokenizer.push(token_id) for token_id in range(len(pieces))]
    return [*texts, detokenizer.flush()], detokenizer.stop_text


def reference(data: bytes, stop: tuple[str, ...]) -> tuple[str, str | None]:
    """Read character by character: the first stop text to be complete ends it, the longest at a tie."""
    text = data.decode("utf-8", "replace")
    for end in range(1, len(text) + 1):
        for match in sorted(stop, key=len, reverse=True):
            if text[:end].endswith(match):
                return text[: end - len(match)], match
    return text, None


def test_shows_text_at_once_when_nothing_can_be_a_stop() -> None:
    assert shown([b"Hello", b" world"]) == (["Hello", " world", ""], None)


def test_holds_a_character_until_its_last_byte() -> None:
    assert shown([b"\xf0", b"\x9f\x99", b"\x82!"]) == (["", "", "🙂!", ""], None)


def test_shows_a_replacement_as_soon_as_bytes_cannot_complete_a_character() -> None:
    assert shown([b"\xf0\x9f", b"a", b"\x80"]) == (["", "�a", "�", ""], None)


def test_unfinished_character_shows_as_replacement_at_the_end() -> None:
    assert shown([b"ok\xe2\x82"]) == (["ok", "�"], None)


def test_control_token_adds_nothing() -> None:
    assert shown([b"a", b"", b"b"]) == (["a", "", "b", ""], None)


def test_stop_text_across_tokens_is_never_shown() -> None:
    assert shown([b"one<", b"|e", b"nd|>", b"after"], ("<|end|>",)) == (["one", "", "", "", ""], "<|end|>")


def test_partial_stop_is_shown_once_it_cannot_match() -> None:
    assert shown([b"a <", b"|e", b"lse"], ("<|end|>",)) == (["a ", "", "<|else", ""], None)


def test_partial_stop_is_flushed_at_the_end() -> None:
    assert shown([b"a\n\n"], ("\n\nUser:",)) == (["a", "\n\n"], None)


def test_tail_of_a_failed_match_can_begin_another() -> None:
    assert shown([b"aa", b"a", b"b!"], ("aab",)) == (["", "a", "", ""], "aab")


def test_stop_ends_text_inside_a_token() -> None:
    assert shown([b"left.right.more"], (".",)) == (["left", ""], ".")


@pytest.mark.parametrize("pieces", [[b"xabcd"], [b"xa", b"bc", b"d"], [b"x", b"a", b"b", b"c", b"d"]])
def test_overlapping_stops_give_the_one_complete_first(pieces: list[bytes]) -> None:
    texts, stop_text = shown(pieces, ("abcd", "bc"))
    assert ("".join(texts), stop_text) == ("xa", "bc")


@pytest.mark.parametrize("stop", [("bc", "abc"), ("abc", "bc")])
def test_stops_that_end_together_give_the_longest(stop: tuple[str, ...]) -> None:
    texts, stop_text = shown([b"xa", b"bc"], stop)
    assert ("".join(texts), stop_text) == ("x", "abc")


def test_stop_in_a_multibyte_character_waits_for_all_of_it() -> None:
    assert shown([b"a\xe3\x80", b"\x82b"], ("。",)) == (["a", "", ""], "。")


def test_replacement_character_of_a_flush_can_complete_a_stop() -> None:
    assert shown([b"a\xe3"], ("\ufffd",)) == (["a", ""], "\ufffd")


def test_stop_found_at_flush_leaves_nothing_held() -> None:
    detokenizer = IncrementalDetokenizer(PieceTokenizer([b"ab\xe3"]), ("b\ufffd",))
    assert [detokenizer.push(0), detokenizer.flush(), detokenizer.flush()] == ["a", "", ""]
    assert detokenizer.stop_text == "b\ufffd"


BYTES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=24).map(lambda text: text.encode("utf-8", "replace")),
    st.text("ab<|é🙂", max_size=24).map(str.encode),
    st.lists(st.sampled_from([b"\xf0\x9f", b"\x80", b"\xed\xa0", b"\xe0", b"a", b"b", b"\xc0", b"\xf4\x90"])).map(
        b"".join
    ),
)
STOPS = st.lists(st.text("ab<|é\ufffd", min_size=1, max_size=4), max_size=4).map(tuple)


@settings(max_examples=600, deadline=None)
@given(data=BYTES, stop=STOPS, cuts=st.lists(st.integers(0, 96), max_size=12))
def test_any_chunking_shows_what_the_whole_text_would(data: bytes, stop: tuple[str, ...], cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    texts, stop_text = shown([data[start:end] for start, end in pairwise(bounds)], stop)
    assert ("".join(texts), stop_text) == reference(data, stop)


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab<|é", max_size=24), stop=STOPS)
def test_holds_back_only_what_a_stop_text_begins_with(text: str, stop: tuple[str, ...]) -> None:
    detokenizer = IncrementalDetokenizer(PieceTokenizer([text.encode()]), stop)
    detokenizer.push(0)
    if detokenizer.stop_text is None:
        held = detokenizer.flush()
        assert not held or any(match.startswith(held) for match in stop)


def test_control_tokens_are_shown_by_name_only_where_asked() -> None:
    tokenizer = ByteTokenizer("[CALL]")
    hidden, shown_by_name = IncrementalDetokenizer(tokenizer), IncrementalDetokenizer(tokenizer, (), {258})
    assert [hidden.push(258), hidden.push(257)] == ["", ""]
    assert [shown_by_name.push(258), shown_by_name.push(257)] == ["[CALL]", ""]
