"""Byte-level BPE: text is UTF-8 bytes, each spelled as one printable character, cut into words and merged.

Source: GPT-2, https://github.com/openai/gpt-2/blob/master/src/encoder.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as InOrder

from layerscale_core.tokenizers.bpe_tokenizer import BpeTokenizer
from layerscale_core.tokenizers.pre_tokenizers import PreTokenizer
from layerscale_core.tokenizers.vocabulary import Vocabulary


def make_byte_level_tokenizer(
    vocabulary: Vocabulary, merges: Sequence[tuple[str, str]], pre_tokenizer: PreTokenizer
) -> BpeTokenizer:
    """Build the tokenizer.

    Args:
        merges: pairs of token texts, most urgent first.

    Raises:
        ValueError: a merge names or makes a text that is not a token.
    """
    try:
        model = BPE(vocabulary.ids_by_text(), list(merges), ignore_merges=pre_tokenizer.ignore_merges)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(" ".join(str(error).split())[:200]) from error
    splits = [Split(Regex(pattern), "isolated") for pattern in pre_tokenizer.patterns]
    to_bytes = ByteLevel(add_prefix_space=False, use_regex=False)
    return BpeTokenizer(vocabulary, model, pre_tokenizer=InOrder([*splits, to_bytes]), spell=bytes_of)


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
