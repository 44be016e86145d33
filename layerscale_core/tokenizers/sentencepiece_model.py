"""A vocabulary as the model file of the ``sentencepiece`` library: a protocol buffer, written piece by piece.

Source: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto for the fields, and
https://protobuf.dev/programming-guides/encoding for their bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from layerscale_core.tokenizers.piece_tokenizer import byte_value
from layerscale_core.tokenizers.vocabulary import TokenKind, Vocabulary

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _BYTE_FALLBACK = 3, 35
_BPE = 2
_NORMALIZER_NAME, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES = 1, 3, 4

_VARINT, _LENGTH_DELIMITED, _32_BITS = 0, 2, 5
_FLOAT_BYTES = 4

_NORMAL = TokenKind.NORMAL
_JOINED = (_NORMAL, TokenKind.USER_DEFINED, TokenKind.UNUSED)
"""Kinds that text is joined into."""


def write_sentencepiece_model(vocabulary: Vocabulary, scores: Sequence[float], *, add_space_prefix: bool) -> bytes:
    """Write a model that joins pieces, best score first, and has the vocabulary's ids.

    Plain text becomes no control token and no hole. User-defined tokens are pieces like any other: where their text
    stands in a text, it is cut out before.

    Raises:
        ValueError: characters without a piece could not be expressed.
    """
    names, kinds = [text.encode() for text in vocabulary.tokens], _library_kinds(vocabulary)
    for token_id in [token_id for token_id, kind in enumerate(kinds) if kind is not _NORMAL]:
        if kinds[token_id] is TokenKind.BYTE:
            names[token_id] = b"<0x%02X>" % byte_value(vocabulary.tokens[token_id])
        else:  # a name with a space, which no text has once it is normalised
            names[token_id] = b" %d" % token_id
    if TokenKind.UNKNOWN not in kinds:  # the library wants one; with a token for each byte it is never used
        names.append(b" ")
        kinds.append(TokenKind.UNKNOWN)
        scores = [*scores, 0.0]
    trainer = _number(_MODEL_TYPE, _BPE) + _number(_BYTE_FALLBACK, TokenKind.BYTE in kinds)
    spaces = _number(_ADD_DUMMY_PREFIX, add_space_prefix) + _number(_REMOVE_EXTRA_WHITESPACES, False)
    normalizer = _text(_NORMALIZER_NAME, b"identity") + spaces
    return _pieces(names, kinds, scores) + _text(_TRAINER, trainer) + _text(_NORMALIZER, normalizer)


def _library_kinds(vocabulary: Vocabulary) -> list[TokenKind]:
    """What the library is to take each token for: one token is unknown, and there are all bytes or none.

    Raises:
        ValueError: there is neither an unknown token nor a token for each byte.
    """
    has_bytes = {byte_value(text) for text in vocabulary.ids_of(TokenKind.BYTE)} == set(range(256))
    unknown_id = next(iter(vocabulary.ids_of(TokenKind.UNKNOWN).values()), None)
    if unknown_id is None and not has_bytes:
        raise ValueError("there is neither an unknown token nor a token for each byte")
    taken_for = {int(kind): _NORMAL if kind in _JOINED else TokenKind.CONTROL for kind in TokenKind}
    if has_bytes:
        taken_for[TokenKind.BYTE] = TokenKind.BYTE
    rows = zip(vocabulary.tokens, vocabulary.kinds, strict=True)
    kinds = [taken_for[kind] if text else TokenKind.CONTROL for text, kind in rows]
    if unknown_id is not None:
        kinds[unknown_id] = TokenKind.UNKNOWN
    return kinds


def _pieces(names: Sequence[bytes], kinds: Sequence[TokenKind], scores: Sequence[float]) -> bytes:
    """The pieces of a model, which are nearly all of it."""
    behind = {kind: _number(_TYPE, kind) + _tag(_SCORE, _32_BITS) for kind in TokenKind}
    floats = memoryview(np.asarray(scores, "<f4").tobytes())
    pieces = bytearray()
    for name, kind, start in zip(names, kinds, range(0, len(floats), _FLOAT_BYTES), strict=True):
        pieces += _before(len(name)) + name + behind[kind] + floats[start : start + _FLOAT_BYTES]
    return bytes(pieces)


@cache
def _before(num_bytes: int) -> bytes:
    """What comes before a name of so many bytes."""
    start = _tag(_PIECE, _LENGTH_DELIMITED) + _varint(num_bytes)
    size = len(start) + num_bytes + len(_number(_TYPE, 0) + _tag(_SCORE, _32_BITS)) + _FLOAT_BYTES
    return _tag(_PIECES, _LENGTH_DELIMITED) + _varint(size) + start


def _text(field: int, content: bytes) -> bytes:
    return _tag(field, _LENGTH_DELIMITED) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _tag(field, _VARINT) + _varint(value)


def _tag(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    if value < 128:
        return b"%c" % value
    return b"%c" % (value & 127 | 128) + _varint(value >> 7)
