"""SentencePiece BPE: text with spaces spelled ``▁``, pieces joined best score first, unknown characters as bytes.

The library that such vocabularies are made with joins the pieces. As llama.cpp reads them from GGUF, there is no
Unicode normalisation, runs of spaces are kept, and special tokens are cut out of a text before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscale_core.tokenizers.piece_tokenizer import HIDDEN, PieceTokenizer, spell_spaced
from layerscale_core.tokenizers.sentencepiece_model import write_sentencepiece_model
from layerscale_core.tokenizers.special_texts import SpecialTexts
from layerscale_core.tokenizers.vocabulary import TokenKind, Vocabulary

MAX_PIECE_CHARS = 256
"""Longest token; trainers stop at 16 by default."""


class SentencePieceTokenizer(PieceTokenizer):
    """Implements ``layerscale_core.specs.Tokenizer``. Encoding does not hold the interpreter's lock.

    User-defined tokens are read in any text, control and unknown tokens only with ``parse_special``; the leftmost is
    taken, the longest where several begin.

    Args:
        scores: finite, one per token; the higher, the earlier two pieces are joined into that token, and of equal ones
            the leftmost.
        add_space_prefix: put a space before a text, and before what follows a special token.

    Raises:
        ValueError: characters without a piece could not be expressed, or a piece is too long.
    """

    def __init__(self, vocabulary: Vocabulary, scores: NDArray[np.floating], *, add_space_prefix: bool) -> None:
        from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 (for those alone who have such a vocabulary)

        tokens = vocabulary.tokens
        long = np.flatnonzero(tokens.encoded.lengths > MAX_PIECE_CHARS)  # bytes; a character has one at least
        if any(len(tokens[index]) > MAX_PIECE_CHARS for index in long.tolist()):
            raise ValueError(f"a piece is longer than {MAX_PIECE_CHARS} characters")
        super().__init__(vocabulary, spell_spaced, has_space_prefix=add_space_prefix)
        user_defined = vocabulary.ids_of(TokenKind.USER_DEFINED)
        self._user_defined = SpecialTexts(user_defined)
        self._special = SpecialTexts(user_defined | vocabulary.ids_of(*HIDDEN))
        model = write_sentencepiece_model(vocabulary, scores, add_space_prefix=add_space_prefix)
        self._processor = SentencePieceProcessor(model_proto=model)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text without lone surrogates."""
        ids: list[int] = []
        for before, token_id in (self._special if parse_special else self._user_defined).split(text):
            if before:
                ids += self._processor.encode(before)
            if token_id is not None:
                ids.append(token_id)
        return self._vocabulary.with_ends(ids) if add_special else ids
