"""A vocabulary as the model file of the ``sentencepiece`` library: a protocol buffer, written piece by piece.

Source: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto for the fields, and
https://protobuf.dev/programming-guides/encoding for their bytes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from layerscale_core.tokenizers.piece_tokenizer import byte_value
from layerscale_core.tokenizers.vocabulary import TokenKind, Vocabulary

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _BYTE_FALLBACK = 3, 35
_BPE = 2
_NORMALIZER_NAME, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES = 1, 3, 4

_VARINT, _LENGTH_DELIMITED, _32_BITS = 0, 2, 5
_NORMAL = TokenKind.NORMAL
_JOINED = (_NORMAL, TokenKind.USER_DEFINED, TokenKind.UNUSED)
"""Kinds that text is joined into."""


def write_sentencepiece_model(vocabulary: Vocabulary, scores: NDArray[np.floating], *, add_space_prefix: bool) -> bytes:
    """Write a model that joins pieces, best score first, and has the vocabulary's ids.

    Plain text becomes no control token and no hole. User-defined tokens are pieces like any other: where their text
    stands in a text, it is cut out before.

    Raises:
        ValueError: characters without a piece could not be expressed.
    """
    kinds = _library_kinds(vocabulary)
    has_bytes = TokenKind.BYTE in kinds
    names, lengths = _names(vocabulary, kinds)
    pieces = _pieces(names, lengths, kinds, scores.astype("<f4"))
    if TokenKind.UNKNOWN not in kinds:  # the library wants one; with a token for each byte it is never used
        unknown = np.array([TokenKind.UNKNOWN], np.uint8)
        pieces += _pieces(b" ", np.ones(1, np.uint32), unknown, np.zeros(1, "<f4"))
    trainer = _number(_MODEL_TYPE, _BPE) + _number(_BYTE_FALLBACK, has_bytes)
    spaces = _number(_ADD_DUMMY_PREFIX, add_space_prefix) + _number(_REMOVE_EXTRA_WHITESPACES, False)
    normalizer = _text(_NORMALIZER_NAME, b"identity") + spaces
    return pieces + _text(_TRAINER, trainer) + _text(_NORMALIZER, normalizer)


def _library_kinds(vocabulary: Vocabulary) -> NDArray[np.uint8]:
    """What the library is to take each token for: one token is unknown, and there are all bytes or none.

    Raises:
        ValueError: there is neither an unknown token nor a token for each byte.
    """
    has_bytes = {byte_value(text) for text in vocabulary.ids_of(TokenKind.BYTE)} == set(range(256))
    unknown_id = next(iter(vocabulary.ids_of(TokenKind.UNKNOWN).values()), None)
    if unknown_id is None and not has_bytes:
        raise ValueError("there is neither an unknown token nor a token for each byte")
    taken_for = np.full(len(TokenKind), TokenKind.CONTROL, np.uint8)
    taken_for[list(_JOINED)] = _NORMAL
    if has_bytes:
        taken_for[TokenKind.BYTE] = TokenKind.BYTE
    kinds = taken_for[np.frombuffer(vocabulary.kinds, np.uint8)]
    kinds[vocabulary.tokens.encoded.lengths == 0] = TokenKind.CONTROL
    if unknown_id is not None:
        kinds[unknown_id] = TokenKind.UNKNOWN
    return kinds


def _names(vocabulary: Vocabulary, kinds: NDArray[np.uint8]) -> tuple[bytes, NDArray[np.uint32]]:
    """What the library calls the tokens, one name behind the other, and the bytes of each."""
    tokens = vocabulary.tokens.encoded
    lengths = tokens.lengths
    renamed = np.flatnonzero(kinds != _NORMAL).tolist()
    names = []
    for before, token_id in pairwise([-1, *renamed, len(tokens)]):
        names.append(tokens.joined(before + 1, token_id))
        if token_id < len(tokens):
            if kinds[token_id] == TokenKind.BYTE:
                names.append(b"<0x%02X>" % byte_value(vocabulary.tokens[token_id]))
            else:  # a name with a space, which no text has once it is normalised
                names.append(b" %d" % token_id)
            lengths[token_id] = len(names[-1])
    return b"".join(names), lengths


def _pieces(names: bytes, lengths: NDArray[np.uint32], kinds: NDArray[np.uint8], scores: NDArray[np.float32]) -> bytes:
    """The pieces of a model, which are nearly all of it, written together: a message of a name, a kind and a score."""
    before = np.empty((len(lengths), 6), np.uint8)
    behind = np.empty((len(lengths), 7), np.uint8)
    before[:, 0], before[:, 1:3] = _byte(_PIECES, _LENGTH_DELIMITED), _two_byte_varints(lengths + 3 + 7)
    before[:, 3], before[:, 4:6] = _byte(_PIECE, _LENGTH_DELIMITED), _two_byte_varints(lengths)
    behind[:, 0], behind[:, 1] = _byte(_TYPE, _VARINT), kinds
    behind[:, 2], behind[:, 3:] = _byte(_SCORE, _32_BITS), scores.view(np.uint8).reshape(-1, 4)
    # Each name stands between two rows of the above.
    parts = np.stack([np.full_like(lengths, 6), lengths, np.full_like(lengths, 7)], axis=-1)
    is_name = np.repeat(np.tile([False, True, False], len(lengths)), parts.reshape(-1))
    pieces = np.empty(len(is_name), np.uint8)
    pieces[is_name] = np.frombuffer(names, np.uint8)
    pieces[~is_name] = np.concatenate([before, behind], axis=-1).reshape(-1)
    return pieces.tobytes()


def _byte(field: int, wire_type: int) -> int:
    (tag,) = _tag(field, wire_type)
    return tag


def _two_byte_varints(values: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Numbers below 2^14, the small ones as long as the large: [number of values, 2]."""
    return np.stack([values & 127 | 128, values >> 7], axis=-1).astype(np.uint8)


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
