"""A tokenizer that merges pairs: the one class behind byte-level BPE and SentencePiece vocabularies."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import AddedToken
from tokenizers import Tokenizer as Encoder
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from layerscale_core.tokenizers.encoding import encode
from layerscale_core.tokenizers.piece_tokenizer import HIDDEN, PieceTokenizer
from layerscale_core.tokenizers.vocabulary import TokenKind, Vocabulary


class BpeTokenizer(PieceTokenizer):
    """Implements ``layerscale_core.specs.Tokenizer``.

    User-defined tokens are read in any text, control and unknown tokens only with ``parse_special``; the leftmost is
    taken, the longest where several begin. Encoding does not hold the interpreter's lock.

    Args:
        vocabulary: the tokens.
        model: the merges; shared by both ways of reading special tokens.
        normalizer, pre_tokenizer: what happens to text between special tokens before merging.
        spell, has_space_prefix: see ``PieceTokenizer``.
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
        super().__init__(vocabulary, spell, has_space_prefix=has_space_prefix)

        def make_encoder(*parsed: TokenKind) -> Encoder:
            encoder = Encoder(model)
            encoder.normalizer = normalizer
            encoder.pre_tokenizer = pre_tokenizer
            encoder.add_tokens([AddedToken(text, normalized=False) for text in vocabulary.texts_of(*parsed)])
            return encoder

        self._plain_encoder = make_encoder(TokenKind.USER_DEFINED)
        self._special_encoder = make_encoder(TokenKind.USER_DEFINED, *HIDDEN)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text without lone surrogates."""
        encoder = self._special_encoder if parse_special else self._plain_encoder
        ids = encode(encoder, text, add_special=False)
        if not add_special:
            return ids
        vocabulary = self._vocabulary
        start = [vocabulary.bos_id] if vocabulary.add_bos and vocabulary.bos_id is not None else []
        end = [vocabulary.eos_id] if vocabulary.add_eos and vocabulary.eos_id is not None else []
        return [*start, *ids, *end]
