"""SentencePiece BPE: text with spaces spelled ``▁``, pieces joined best score first, unknown characters as bytes.

Source: https://github.com/google/sentencepiece (``bpe_model.cc``), as llama.cpp reads it from GGUF: no Unicode
normalisation, runs of spaces kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer, Prepend, Replace
from tokenizers.normalizers import Sequence as InOrder

from layerscale_core.tokenizers.bpe_tokenizer import BpeTokenizer
from layerscale_core.tokenizers.piece_tokenizer import byte_value
from layerscale_core.tokenizers.vocabulary import TokenKind, Vocabulary

SPACE = "▁"
MAX_PIECE_CHARS = 256
"""Longest piece built by joining; trainers stop at 16 by default, and the ways to cut a piece grow with its length."""

_JOINED = (TokenKind.NORMAL, TokenKind.USER_DEFINED, TokenKind.UNUSED)


def make_sentencepiece_tokenizer(
    vocabulary: Vocabulary, scores: Sequence[float], *, add_space_prefix: bool
) -> BpeTokenizer:
    """Build the tokenizer.

    Args:
        scores: finite, one per token; the higher, the earlier two pieces are joined into that token.

    Raises:
        ValueError: characters without a piece could not be expressed, or a piece is too long.
    """
    unknown = vocabulary.texts_of(TokenKind.UNKNOWN)
    byte_texts = vocabulary.texts_of(TokenKind.BYTE)
    if not unknown and {byte_value(text) for text in byte_texts} != set(range(256)):
        raise ValueError("there is neither an unknown token nor a token for each byte")
    model = BPE(
        vocabulary.ids_by_text(),
        list(_merges(vocabulary, scores)),
        unk_token=unknown[0] if unknown else None,
        byte_fallback=True,
    )
    steps: list[Normalizer] = [Prepend(SPACE)] if add_space_prefix else []
    return BpeTokenizer(
        vocabulary,
        model,
        normalizer=InOrder([*steps, Replace(" ", SPACE)]),
        spell=lambda text: text.replace(SPACE, " ").encode(),
        has_space_prefix=add_space_prefix,
    )


def _merges(vocabulary: Vocabulary, scores: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Every way to join two pieces into a third, best score first.

    Plain text never becomes a control, unknown or byte token, as in SentencePiece. Scores of a trained vocabulary are
    distinct; where two are equal, the smaller id goes first.
    """
    tokens = vocabulary.tokens
    joined = [token_id for token_id, kind in enumerate(vocabulary.kinds) if kind in _JOINED and tokens[token_id]]
    joined.sort(key=scores.__getitem__, reverse=True)
    pieces = {(text := tokens[token_id]): text for token_id in joined}  # one string of each, as merges are many
    for text in pieces:
        if len(text) > MAX_PIECE_CHARS:
            raise ValueError(f"a piece is longer than {MAX_PIECE_CHARS} characters")
        # The longer left part first: a run of one character is joined from the left, and only its end is short.
        for cut in range(len(text) - 1, 0, -1):
            if (right := pieces.get(text[cut:])) and (left := pieces.get(text[:cut])):
                yield left, right
