"""SentencePiece vocabularies of a few letters, against the rule that joins pieces written out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.texts import Texts
from layerscale_core.tokenizers.sentencepiece import SentencePieceTokenizer
from layerscale_core.tokenizers.vocabulary import TokenKind, Vocabulary

BYTES = [(f"<0x{byte:02X}>", TokenKind.BYTE) for byte in range(256)]
LETTERS = [(letter, TokenKind.NORMAL) for letter in "ab▁é"]


def make(*tokens: tuple[str, TokenKind], scores: Mapping[str, float]) -> SentencePieceTokenizer:
    texts = [text for text, _ in tokens]
    kinds = bytes(kind for _, kind in tokens)
    vocabulary = Vocabulary(Texts.of(texts), kinds, None, None, frozenset(), False, False)
    given_scores = np.array([scores.get(text, 0.0) for text in texts])
    return SentencePieceTokenizer(vocabulary, given_scores, add_space_prefix=False)


def join_slowly(text: str, scores: Mapping[str, float]) -> list[str]:
    """Join the two neighbours whose joined text has the best score, the leftmost of equals, until none is a piece."""
    pieces = list(text.replace(" ", "▁"))
    while joinable := [
        (-scores[joined], place)
        for place in range(len(pieces) - 1)
        if (joined := pieces[place] + pieces[place + 1]) in scores
    ]:
        place = min(joinable)[1]
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return pieces


SCORES = st.dictionaries(st.text("ab▁é", min_size=2, max_size=5), st.integers(-6, 0).map(float), max_size=12)


@settings(max_examples=150, deadline=None)
@given(scores=SCORES, text=st.text("ab é", max_size=24))
def test_joins_the_neighbours_of_the_best_score_until_none_are_a_piece(scores: dict[str, float], text: str) -> None:
    pieces = [(piece, TokenKind.NORMAL) for piece in scores]
    tokenizer = make(*BYTES, *LETTERS, *pieces, scores=scores)
    assert [tokenizer.token_text(token_id) for token_id in tokenizer.encode(text)] == join_slowly(text, scores)


@pytest.mark.parametrize("kind", [TokenKind.CONTROL, TokenKind.UNDEFINED])
def test_a_control_token_of_one_character_is_not_text(kind: TokenKind) -> None:
    tokenizer = make(*BYTES, ("a", kind), scores={})
    assert tokenizer.encode("a") == [ord("a")]


def test_text_never_becomes_a_hole_of_the_vocabulary() -> None:
    tokenizer = make(*BYTES, ("", TokenKind.NORMAL), ("", TokenKind.CONTROL), *LETTERS, scores={})
    assert tokenizer.encode(" 256 ") == [258 + 2, ord("2"), ord("5"), ord("6"), 258 + 2]


def test_a_second_unknown_token_is_only_read_where_it_is_spelled() -> None:
    unknown = [("<unk>", TokenKind.UNKNOWN), ("<other>", TokenKind.UNKNOWN)]
    tokenizer = make(*unknown, *LETTERS, scores={})
    assert tokenizer.encode("x<other>", parse_special=True) == [0, 1]


def test_scores_are_compared_as_the_file_has_them() -> None:
    scores = {"ab": -16_777_216.0, "ba": -16_777_215.0}
    tokenizer = make(*BYTES, *LETTERS, *((piece, TokenKind.NORMAL) for piece in scores), scores=scores)
    assert [tokenizer.token_text(token_id) for token_id in tokenizer.encode("aba")] == ["a", "ba"]


@pytest.mark.parametrize("length", [1, 117, 127, 128, 256])
def test_pieces_of_every_length_are_found(length: int) -> None:
    scores = {"a" * number: -float(number) for number in range(2, length + 1)}
    pieces = [(piece, TokenKind.NORMAL) for piece in scores]
    tokenizer = make(*BYTES, *LETTERS, *pieces, scores=scores)
    assert tokenizer.token_text(tokenizer.encode("a" * length)[0]) == max(["a", *scores], key=len)
