"""Byte-level BPE: text is UTF-8 bytes, each spelled as one printable character, cut into words and merged.

Source: GPT-2, https://github.com/openai/gpt-2/blob/master/src/encoder.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Regex
from tokenizers import Tokenizer as Encoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as InOrder

from layerscale_core.tokenizers.encoding import encode, shortened
from layerscale_core.tokenizers.piece_tokenizer import HIDDEN, PieceTokenizer
from layerscale_core.tokenizers.pre_tokenizers import PreTokenizer
from layerscale_core.tokenizers.vocabulary import TokenKind, Vocabulary


class ByteLevelTokenizer(PieceTokenizer):
    """Implements ``layerscale_core.specs.Tokenizer``.

    User-defined tokens are read in any text, control and unknown tokens only with ``parse_special``; the leftmost is
    taken, the longest where several begin. Encoding does not hold the interpreter's lock.

    Args:
        merges: pairs of token texts, most urgent first.
        pre_tokenizer: how text between special tokens is cut before merging.

    Raises:
        ValueError: a merge names or makes a text that is not a token.
    """

    def __init__(self, vocabulary: Vocabulary, merges: Sequence[tuple[str, str]], pre_tokenizer: PreTokenizer) -> None:
        super().__init__(vocabulary, bytes_of, has_space_prefix=False)
        try:
            model = BPE(vocabulary.ids(), list(merges), ignore_merges=pre_tokenizer.ignore_merges)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(shortened(error)) from error
        splits = [Split(Regex(pattern), "isolated") for pattern in pre_tokenizer.patterns]
        to_bytes = ByteLevel(add_prefix_space=False, use_regex=False)

        def make_encoder(*parsed: TokenKind) -> Encoder:
            encoder = Encoder(model)  # shared by both ways of reading special tokens
            encoder.pre_tokenizer = InOrder([*splits, to_bytes])
            encoder.add_tokens([AddedToken(text, normalized=False) for text in vocabulary.ids_of(*parsed)])
            return encoder

        self._plain_encoder = make_encoder(TokenKind.USER_DEFINED)
        self._special_encoder = make_encoder(TokenKind.USER_DEFINED, *HIDDEN)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text without lone surrogates."""
        encoder = self._special_encoder if parse_special else self._plain_encoder
        ids = encode(encoder, text, add_special=False)
        return self._vocabulary.with_ends(ids) if add_special else ids


def bytes_of(text: str) -> bytes:
    """The bytes that a token's text spells; a text that is no such spelling stands for itself."""
    try:
        return bytes(_BYTE_BY_CHAR[char] for char in text)
    except KeyError:
        return text.encode()


def _byte_by_char() -> dict[str, int]:
    """Printable Latin-1 characters stand for themselves, the other bytes in order for U+0100 and up."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_BY_CHAR = _byte_by_char()
