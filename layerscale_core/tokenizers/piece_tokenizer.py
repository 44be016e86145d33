"""From token ids back to text: what every tokenizer shares, however it cuts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from layerscale_core.tokenizers.vocabulary import TokenKind, Vocabulary

SPACE = "▁"
"""How SentencePiece spells a space."""

HIDDEN = (TokenKind.CONTROL, TokenKind.UNKNOWN)
"""Kinds that add nothing to the output."""

_MAX_SPELLED = 4096
"""Tokens whose bytes are kept, those spelled last: text of one kind has few others, and they take less than 1 MB."""


class PieceTokenizer:
    """``layerscale_core.specs.Tokenizer`` without ``encode``.

    Args:
        vocabulary: the tokens.
        spell: the bytes of a normal token's text.
        has_space_prefix: ``encode`` puts a space before the text, which ``decode`` takes away.
    """

    def __init__(self, vocabulary: Vocabulary, spell: Callable[[str], bytes], *, has_space_prefix: bool) -> None:
        self._vocabulary = vocabulary
        self._spell = spell
        self._has_space_prefix = has_space_prefix
        self._spelled = lru_cache(_MAX_SPELLED)(self._spell_token)

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self._vocabulary.tokens)

    @property
    def bos_id(self) -> int | None:
        """Beginning of sequence."""
        return self._vocabulary.bos_id

    @property
    def eos_id(self) -> int | None:
        """End of sequence."""
        return self._vocabulary.eos_id

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every id that ends generation."""
        return self._vocabulary.stop_ids

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to the output; b"" for control, unknown and unused tokens."""
        return self._spelled(token_id)

    def _spell_token(self, token_id: int) -> bytes:
        text = self._vocabulary.tokens[token_id]
        match self._vocabulary.kinds[token_id]:
            case TokenKind.NORMAL:
                return self._spell(text)
            case TokenKind.USER_DEFINED:
                return text.encode()
            case TokenKind.BYTE:
                return bytes([byte_value(text)])
            case _:
                return b""

    def token_text(self, token_id: int) -> str:
        """The vocabulary's text of a token."""
        return self._vocabulary.tokens[token_id]

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of a sequence; the inverse of ``encode`` where the vocabulary can spell the text."""
        pieces = [
            self.token_text(token_id).encode() if self._shows(token_id, skip_special) else self.token_bytes(token_id)
            for token_id in token_ids
        ]
        text = b"".join(pieces).decode("utf-8", "replace")
        return text.removeprefix(" ") if self._has_space_prefix else text

    def _shows(self, token_id: int, skip_special: bool) -> bool:
        """Whether a token stands in decoded text as the vocabulary spells it."""
        return not skip_special and self._vocabulary.kinds[token_id] in HIDDEN


def spell_spaced(text: str) -> bytes:
    """What a token of SentencePiece's spelling adds to the output."""
    return text.replace(SPACE, " ").encode()


def byte_value(text: str) -> int:
    """The byte of a token spelled ``<0xNN>``.

    Raises:
        ValueError: it is spelled otherwise.
    """
    match = re.fullmatch("<0x([0-9A-Fa-f]{2})>", text)
    if match is None:
        raise ValueError(f"a byte token is not spelled <0xNN>: {text!r}")
    return int(match[1], 16)
