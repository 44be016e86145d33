"""A tokenizer from a GGUF file's metadata.

Keys and their meaning: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Where a file leaves something out,
llama.cpp's defaults hold. Each kind of tokenizer is imported when a file has it, with the library that it needs.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.specs.tokenizer import Tokenizer
from layerscale_core.texts import Texts
from layerscale_core.tokenizers.piece_tokenizer import byte_value
from layerscale_core.tokenizers.pre_tokenizers import PRE_TOKENIZERS
from layerscale_core.tokenizers.text_index import TextIndex
from layerscale_core.tokenizers.vocabulary import ROLES, TokenKind, Vocabulary, find_stop_ids, mark_control_tokens

Value = TypeVar("Value", str, int, float, bool)


def tokenizer_from_gguf(metadata: Mapping[str, object], path: str) -> Tokenizer:
    """Build the tokenizer that a file describes.

    Args:
        metadata: GGUF key to value; arrays are lists, ``array.array`` or ``Texts``.
        path: the file, for error messages.

    Raises:
        ModelFileError: a key is missing, has the wrong type, or contradicts another.
        UnsupportedModelError: a kind of tokenizer, or of pre-tokenizer, that this build does not have.
    """
    fields = _Fields(metadata, path)
    model = fields.require("model", str)
    match model:
        case "gpt2":
            return _byte_level(fields)
        case "llama":
            return _sentencepiece(fields)
    raise UnsupportedModelError(
        f"{path}: tokenizer model {model!r} is not supported, only 'gpt2' (byte-level BPE) and 'llama' (SentencePiece)"
    )


def _byte_level(fields: _Fields) -> Tokenizer:
    from layerscale_core.tokenizers.byte_level import ByteLevelTokenizer  # noqa: PLC0415 (as above)

    name = fields.get("pre", str) or "default"
    pre_tokenizer = PRE_TOKENIZERS.get(name)
    if pre_tokenizer is None:
        raise UnsupportedModelError(
            f"{fields.path}: pre-tokenizer {name!r} is not supported; supported: {', '.join(sorted(PRE_TOKENIZERS))}"
        )
    vocabulary = _vocabulary(fields, default_roles={}, add_bos=pre_tokenizer.add_bos)
    merges = []
    for merge in fields.require_array("merges", str):
        left, _, right = merge.partition(" ")
        merges.append((left, right))
    try:
        return ByteLevelTokenizer(vocabulary, merges, pre_tokenizer)
    except ValueError as error:
        raise fields.error("merges", str(error)) from error


def _sentencepiece(fields: _Fields) -> Tokenizer:
    from layerscale_core.tokenizers.sentencepiece import SentencePieceTokenizer  # noqa: PLC0415 (as above)

    vocabulary = _vocabulary(fields, default_roles={"bos": 1, "eos": 2}, add_bos=True)
    scores = np.asarray(fields.require_array("scores", float, length=len(vocabulary.tokens)))
    if not np.isfinite(scores).all():
        raise fields.error("scores", "a score is not finite")
    try:
        return SentencePieceTokenizer(
            vocabulary, scores, add_space_prefix=fields.flag("add_space_prefix", default=True)
        )
    except ValueError as error:
        raise fields.error("tokens", str(error)) from error


def _vocabulary(fields: _Fields, default_roles: Mapping[str, int], *, add_bos: bool) -> Vocabulary:
    listed = fields.require_array("tokens", str)
    tokens = listed if isinstance(listed, Texts) else Texts.of(listed)
    index = TextIndex(tokens)
    _check_tokens(fields, tokens, index)
    kinds = _kinds(fields, tokens)
    roles = {role: token_id for role, token_id in default_roles.items() if token_id < len(tokens)}
    roles |= _roles(fields, len(tokens))
    vocabulary = Vocabulary(
        tokens=tokens,
        kinds=mark_control_tokens(kinds, index.get, roles),
        bos_id=roles.get("bos"),
        eos_id=roles.get("eos"),
        stop_ids=find_stop_ids(index.get, roles),
        add_bos=fields.flag("add_bos_token", default=add_bos),
        add_eos=fields.flag("add_eos_token", default=False),
    )
    if vocabulary.add_bos and vocabulary.bos_id is None:
        raise fields.error("bos_token_id", "key is missing, but the token is to be added to texts")
    if vocabulary.add_eos and vocabulary.eos_id is None:
        raise fields.error("eos_token_id", "key is missing, but the token is to be added to texts")
    return vocabulary


def _check_tokens(fields: _Fields, tokens: Texts, index: TextIndex) -> None:
    if not tokens:
        raise fields.error("tokens", "the vocabulary is empty")
    if (same := index.find_repeated()) is not None:
        raise fields.error("tokens", f"tokens {same[0]} and {same[1]} have the same text")
    if not tokens.are_unicode():
        raise fields.error("tokens", "a token is not valid Unicode")


def _kinds(fields: _Fields, tokens: Texts) -> bytes:
    numbers = fields.array("token_type", int, length=len(tokens))
    if numbers is None:
        return bytes([TokenKind.NORMAL]) * len(tokens)
    unknown = set(numbers) - set(TokenKind)
    if unknown:
        raise fields.error("token_type", f"unknown type {min(unknown)}")
    kinds = bytes(iter(numbers))
    try:
        for token_id in np.flatnonzero(np.frombuffer(kinds, np.uint8) == TokenKind.BYTE).tolist():
            byte_value(tokens[token_id])
    except ValueError as error:
        raise fields.error("tokens", str(error)) from error
    return kinds


def _roles(fields: _Fields, vocab_size: int) -> dict[str, int]:
    """The ids that the metadata names, by role."""
    roles = {}
    for role in ROLES:
        token_id = fields.get(f"{role}_token_id", int)
        if token_id is not None:
            if not 0 <= token_id < vocab_size:
                raise fields.error(f"{role}_token_id", f"{token_id} is not below the vocabulary's {vocab_size} tokens")
            roles[role] = token_id
    return roles


@dataclass(frozen=True, slots=True)
class _Fields:
    """The ``tokenizer.ggml.`` keys, by the rest of their name and with their types checked."""

    metadata: Mapping[str, object]
    path: str

    def error(self, key: str, reason: str) -> ModelFileError:
        return ModelFileError(self.path, reason, field=f"tokenizer.ggml.{key}")

    def get(self, key: str, kind: type[Value]) -> Value | None:
        value = self.metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            return None
        if type(value) is not kind:
            raise self.error(key, f"expected {kind.__name__}")
        return value

    def require(self, key: str, kind: type[Value]) -> Value:
        value = self.get(key, kind)
        if value is None:
            raise self.error(key, "key is missing")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.get(key, bool)
        return default if value is None else value

    def array(self, key: str, kind: type[Value], length: int | None = None) -> Sequence[Value] | None:
        value = self.metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            return None
        items = _as_array_of(kind, value)
        if items is None:
            raise self.error(key, f"expected an array of {kind.__name__}")
        if length is not None and len(items) != length:
            raise self.error(key, f"{len(items)} entries for {length} tokens")
        return items

    def require_array(self, key: str, kind: type[Value], length: int | None = None) -> Sequence[Value]:
        items = self.array(key, kind, length)
        if items is None:
            raise self.error(key, "key is missing")
        return items


def _as_array_of(kind: type[Value], value: object) -> Sequence[Value] | None:
    """An array whose items are all of a type; None: it is something else."""
    if not isinstance(value, list | array | Texts):
        return None
    some = value if isinstance(value, list) else value[:1]  # those of a packed array are all of one
    return cast("Sequence[Value]", value) if {type(item) for item in some} <= {kind} else None
