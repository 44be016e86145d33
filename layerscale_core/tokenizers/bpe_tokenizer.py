"""A tokenizer that merges pairs: the one class behind byte-level BPE and SentencePiece vocabularies."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tokenizers import AddedToken
from tokenizers import Tokenizer as Encoder
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from layerscale_core.tokenizers.vocabulary import TokenKind, Vocabulary

_HIDDEN = (TokenKind.CONTROL, TokenKind.UNKNOWN)


class BpeTokenizer:
    """Implements ``layerscale_core.specs.Tokenizer``.

    User-defined tokens are read in any text, control and unknown tokens only with ``parse_special``; the leftmost is
    taken, the longest where several begin. Encoding does not hold the interpreter's lock.

    Args:
        vocabulary: the tokens.
        model: the merges; shared by both ways of reading special tokens.
        normalizer, pre_tokenizer: what happens to text between special tokens before merging.
        spell: the bytes of a normal token's text.
        has_space_prefix: ``encode`` puts a space before the text, which ``decode`` takes away.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        model: BPE,
        *,
        normalizer: Normalizer | None = None,
        pre_tokenizer: PreTokenizer | None = None,
        spell: Callable[[str], bytes],
        has_space_prefix: bool = False,
    ) -> None:
        self._vocabulary = vocabulary
        self._spell = spell
        self._has_space_prefix = has_space_prefix

        def make_encoder(*parsed: TokenKind) -> Encoder:
            encoder = Encoder(model)
            encoder.normalizer = normalizer
            encoder.pre_tokenizer = pre_tokenizer
            encoder.add_tokens([AddedToken(text, normalized=False) for text in vocabulary.texts_of(*parsed)])
            return encoder

        self._plain_encoder = make_encoder(TokenKind.USER_DEFINED)
        self._special_encoder = make_encoder(TokenKind.USER_DEFINED, *_HIDDEN)

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

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text without lone surrogates."""
        encoder = self._special_encoder if parse_special else self._plain_encoder
        # A batch of one, since only the batch call leaves the interpreter's lock and skips the unused offsets.
        ids: list[int] = encoder.encode_batch_fast([text], add_special_tokens=False)[0].ids
        if not add_special:
            return ids
        vocabulary = self._vocabulary
        start = [vocabulary.bos_id] if vocabulary.add_bos and vocabulary.bos_id is not None else []
        end = [vocabulary.eos_id] if vocabulary.add_eos and vocabulary.eos_id is not None else []
        return [*start, *ids, *end]

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to the output; b"" for control, unknown and unused tokens."""
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
        return not skip_special and self._vocabulary.kinds[token_id] in _HIDDEN


def byte_value(text: str) -> int:
    """The byte of a token spelled ``<0xNN>``.

    Raises:
        ValueError: it is spelled otherwise.
    """
    match = re.fullmatch("<0x([0-9A-Fa-f]{2})>", text)
    if match is None:
        raise ValueError(f"a byte token is not spelled <0xNN>: {text!r}")
    return int(match[1], 16)
