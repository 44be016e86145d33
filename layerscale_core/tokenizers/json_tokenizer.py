"""A tokenizer from a ``tokenizer.json``, which the ``tokenizers`` library runs as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Encoder

from layerscale_core.errors import InvalidRequestError, ModelFileError, UnsupportedModelError
from layerscale_core.texts import Texts
from layerscale_core.tokenizers.byte_level import bytes_of
from layerscale_core.tokenizers.encoding import encode, is_of_library, shortened
from layerscale_core.tokenizers.piece_tokenizer import PieceTokenizer, byte_value, spell_spaced
from layerscale_core.tokenizers.vocabulary import TokenKind, Vocabulary, find_stop_ids, mark_control_tokens

_MODELS = ("BPE", "Unigram")

_PROBE = "Hello, 1 world\n"
_MAX_ADDED_TOKENS = 64
"""More than any model has around a text; those of a hostile one would cost every request."""
_MAX_GROWTH = 64


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """What the files beside a ``tokenizer.json`` say of single tokens.

    Attributes:
        bos, eos: a token's text or its id; None: there is none.
        stop_ids: further ids that end generation; those beyond the vocabulary mean nothing.
    """

    bos: str | int | None = None
    eos: str | int | None = None
    stop_ids: frozenset[int] = frozenset()


class JsonTokenizer(PieceTokenizer):
    """Implements ``layerscale_core.specs.Tokenizer``. Encoding does not hold the interpreter's lock.

    Args:
        description: the object in the file. Added tokens without a row in the embedding are left out.
        special: see there.
        max_vocab_size: rows of the embedding; every id must be below.
        path: the file, for errors.

    Raises:
        ModelFileError: its tables are inconsistent.
        UnsupportedModelError: a kind of tokenizer whose tokens this build cannot spell.
    """

    def __init__(self, description: dict[str, Any], special: SpecialTokens, max_vocab_size: int, path: str) -> None:
        spelling = _find_spelling(description, path)
        added = [token for token in _added_tokens(description, path) if token["id"] < max_vocab_size]
        content = json.dumps({**description, "added_tokens": added})
        _check_growth(description, path)
        self._special_encoder = _make_encoder(content, path)
        _check_encoding(self._special_encoder, max_vocab_size, path)
        self._plain_encoder = _sharing_its_model(self._special_encoder)
        self._plain_encoder.encode_special_tokens = True
        ids = _token_ids(self._special_encoder, max_vocab_size, path)
        vocabulary = _vocabulary(ids, description["model"], added, special)
        super().__init__(vocabulary, spelling.spell, has_space_prefix=spelling.has_space_prefix)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text without lone surrogates."""
        return encode(self._special_encoder if parse_special else self._plain_encoder, text, add_special=add_special)


def _make_encoder(content: str, path: str) -> Encoder:
    try:
        encoder = Encoder.from_str(content)
    except BaseException as error:
        if not is_of_library(error):
            raise
        raise ModelFileError(path, f"the tokenizers library refuses it: {shortened(error)}") from error
    encoder.no_padding()
    encoder.no_truncation()
    return encoder


def _check_encoding(encoder: Encoder, max_vocab_size: int, path: str) -> None:
    """Prove that it reads text at all, and puts nothing but tokens of the model around it."""
    try:
        ids, plain_ids = (encode(encoder, _PROBE, add_special=is_added) for is_added in (True, False))
    except InvalidRequestError:
        raise ModelFileError(path, f"it cannot read {_PROBE!r}") from None
    if max(ids, default=0) >= max_vocab_size:
        raise ModelFileError(path, f"token {max(ids)} has no row in the embedding", field="post_processor")
    if len(ids) - len(plain_ids) > _MAX_ADDED_TOKENS:
        raise ModelFileError(path, f"it adds more than {_MAX_ADDED_TOKENS} tokens to a text", field="post_processor")


def _check_growth(description: Mapping[str, Any], path: str) -> None:
    """Refuse what makes much of little: each step of normalisation may multiply what the one before it made."""
    growth = 1
    for step in _steps(description.get("normalizer"), "normalizers"):
        growth *= max(1, *(len(str(step.get(key, ""))) for key in ("content", "prepend")))
    if growth > _MAX_GROWTH:
        reason = f"its steps together may make more than {_MAX_GROWTH} characters of one"
        raise ModelFileError(path, reason, field="normalizer")


def _sharing_its_model(encoder: Encoder) -> Encoder:
    """An encoder that does the same, without reading the vocabulary once more: of a large one that takes a second."""
    other = Encoder(encoder.model)
    other.normalizer, other.pre_tokenizer = encoder.normalizer, encoder.pre_tokenizer
    other.post_processor = encoder.post_processor
    other.add_tokens([token for _, token in sorted(encoder.get_added_tokens_decoder().items())])
    return other


def _added_tokens(description: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
    added = description.get("added_tokens") or []
    for token in added if isinstance(added, list) else [None]:
        if not (isinstance(token, dict) and type(token.get("id")) is int and isinstance(token.get("content"), str)):
            raise ModelFileError(path, "expected objects with an id and a content", field="added_tokens")
    return added


@dataclass(frozen=True, slots=True)
class _Spelling:
    spell: Callable[[str], bytes]
    has_space_prefix: bool


def _find_spelling(description: Mapping[str, Any], path: str) -> _Spelling:
    """How tokens spell text, from the steps that decode them."""
    model = description.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind not in _MODELS:
        raise UnsupportedModelError(
            f"{path}: tokenizers of type {str(kind)[:64]!r} are not supported, only BPE and Unigram"
        )
    steps = {str(step.get("type")): step for step in _steps(description.get("decoder"), "decoders")}
    if "ByteLevel" in steps:
        return _Spelling(bytes_of, has_space_prefix=False)
    if "Metaspace" in steps or "Replace" in steps:
        prepends = steps.get("Metaspace", {}).get("prepend_scheme", "never") != "never"
        return _Spelling(spell_spaced, has_space_prefix=prepends or "Strip" in steps)
    raise UnsupportedModelError(f"{path}: a tokenizer that decodes with {sorted(steps) or 'nothing'} is not supported")


def _steps(step: object, parts: str) -> Iterator[Mapping[str, Any]]:
    """A step, or those of a sequence, which lie under the key ``parts``."""
    if not isinstance(step, dict):
        return
    if step.get("type") != "Sequence":
        yield step
        return
    for part in step.get(parts) or ():
        yield from _steps(part, parts)


def _token_ids(encoder: Encoder, max_vocab_size: int, path: str) -> dict[str, int]:
    """Every token's id by its text."""
    ids: dict[str, int] = encoder.get_vocab(with_added_tokens=True)
    if not ids:
        raise ModelFileError(path, "the vocabulary is empty", field="model.vocab")
    if max(ids.values()) >= max_vocab_size:
        raise ModelFileError(path, f"token {max(ids.values())} has no row in the embedding", field="model.vocab")
    return ids


def _vocabulary(
    ids: Mapping[str, int], model: Mapping[str, Any], added: Sequence[Mapping[str, Any]], special: SpecialTokens
) -> Vocabulary:
    size = max(ids.values()) + 1
    tokens = [""] * size
    for text, token_id in ids.items():
        tokens[token_id] = text
    kinds = bytearray(TokenKind.NORMAL if text else TokenKind.UNUSED for text in tokens)
    if model.get("byte_fallback"):
        for token_id, text in enumerate(tokens):
            if _is_byte(text):
                kinds[token_id] = TokenKind.BYTE
    unknown = model.get("unk_token")
    if isinstance(unknown, str) and unknown in ids:
        kinds[ids[unknown]] = TokenKind.UNKNOWN
    for token in added:
        if token["content"] in ids:  # the library gives a text that is in the vocabulary no other id
            kinds[ids[token["content"]]] = TokenKind.CONTROL if token.get("special") else TokenKind.USER_DEFINED
    bos_id, eos_id = (_id_of(token, ids, size) for token in (special.bos, special.eos))
    stop_ids = find_stop_ids(ids.get, {} if eos_id is None else {"eos": eos_id})
    return Vocabulary(
        tokens=Texts.of(tokens),
        kinds=mark_control_tokens(bytes(kinds), ids.get, {}),
        bos_id=bos_id,
        eos_id=eos_id,
        stop_ids=stop_ids | {token_id for token_id in special.stop_ids if 0 <= token_id < size},
        add_bos=False,  # what is added to a text is the library's affair
        add_eos=False,
    )


def _id_of(token: str | int | None, ids: Mapping[str, int], size: int) -> int | None:
    if isinstance(token, str):
        return ids.get(token)
    return token if token is not None and 0 <= token < size else None


def _is_byte(text: str) -> bool:
    try:
        byte_value(text)
    except ValueError:
        return False
    return True
