"""A ``tokenizer.json`` of every kind: token for token what the ``tokenizers`` library makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Original

from layerscale_core.errors import InvalidRequestError, ModelFileError, UnsupportedModelError
from layerscale_core.formats import SafetensorsFormat
from layerscale_core.specs import Tokenizer
from layerscale_core.tokenizers.json_tokenizer import JsonTokenizer, SpecialTokens
from tests.core.tokenizers.nasty_strings import NASTY_STRINGS
from tests.support.tiny_folder import byte_level, sentencepiece, unigram, write_json, write_tiny_folder

KINDS: dict[str, Callable[[], Original]] = {
    "byte-level": byte_level,
    "SentencePiece, a space put first": lambda: sentencepiece("prepend"),
    "SentencePiece, metaspace": lambda: sentencepiece("metaspace"),
    "SentencePiece, plain": lambda: sentencepiece("plain"),
    "Unigram": unigram,
}
LOSSY = {"Unigram"}
"""Kinds that cannot spell every text."""


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def original(kind: str) -> Original:
    return KINDS[kind]()


@pytest.fixture(scope="module")
def ours(original: Original) -> Tokenizer:
    return make(original)


def make(original: Original, special: SpecialTokens | None = None, **changes: Any) -> JsonTokenizer:
    description = {**json.loads(original.to_str()), **changes}
    return JsonTokenizer(description, special or SpecialTokens(), 100_000, "tokenizer.json")


@pytest.mark.parametrize("add_special", [True, False])
def test_encodes_as_the_library_does(ours: Tokenizer, original: Original, add_special: bool) -> None:
    for text in NASTY_STRINGS:
        ids = ours.encode(text, add_special=add_special, parse_special=True)
        assert ids == original.encode(text, add_special_tokens=add_special).ids, repr(text)


def test_decodes_as_the_library_does(ours: Tokenizer, original: Original, kind: str) -> None:
    for text in NASTY_STRINGS:
        ids = original.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == original.decode(ids, skip_special_tokens=True), repr(text)


def test_the_bytes_of_tokens_are_those_of_the_text(ours: Tokenizer, kind: str) -> None:
    if kind in LOSSY:
        pytest.skip("it cannot spell every text")
    for text in (text for text in NASTY_STRINGS if "▁" not in text):  # which stands for a space there
        spelled = b"".join(map(ours.token_bytes, ours.encode(text, add_special=False))).decode()
        assert spelled in (text, f" {text}"), repr(text)


def test_special_tokens_are_plain_text_unless_they_are_to_be_read() -> None:
    ours = make(byte_level())
    special = ours.encode("<|im_end|>", parse_special=True)
    plain = ours.encode("<|im_end|>")
    assert len(special) == 1
    assert ours.token_bytes(special[0]) == b""
    assert ours.decode(special, skip_special=False) == "<|im_end|>"
    assert b"".join(map(ours.token_bytes, plain)) == b"<|im_end|>"


def test_plain_text_is_encoded_as_the_library_does_with_special_tokens_as_text(
    ours: Tokenizer, original: Original
) -> None:
    plain = Original.from_str(original.to_str())
    plain.encode_special_tokens = True
    special = [token.content for token in original.get_added_tokens_decoder().values()]
    for text in (*NASTY_STRINGS, *special, " ".join(special), "a".join(special)):
        assert ours.encode(text) == plain.encode(text).ids, repr(text)


def test_other_added_tokens_are_always_read() -> None:
    ours = make(sentencepiece("plain"))
    [token_id] = ours.encode("<tool>", add_special=False)
    assert ours.token_bytes(token_id) == b"<tool>"


def test_stop_tokens_come_from_every_place(tmp_path: Path) -> None:
    folder = write_tiny_folder(
        tmp_path / "tiny",
        config={"eos_token_id": 40, "bos_token_id": 41},
        generation_config={"eos_token_id": [42, 43, 99_999]},
    )
    file = SafetensorsFormat().open(folder)
    ours = file.make_tokenizer()
    im_end, end_of_text = (ours.encode(text, parse_special=True)[0] for text in ("<|im_end|>", "<|endoftext|>"))
    assert ours.eos_id == im_end
    assert ours.stop_ids == {40, 42, 43, im_end, end_of_text}
    file.close()


def test_without_a_configuration_of_its_own_the_models_ids_hold(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "tiny", config={"eos_token_id": [40, 44], "bos_token_id": 41})
    (folder / "tokenizer_config.json").unlink()
    file = SafetensorsFormat().open(folder)
    ours = file.make_tokenizer()
    assert (ours.bos_id, ours.eos_id) == (41, 40)
    assert {40, 44} <= ours.stop_ids
    file.close()


def test_a_token_may_be_named_by_an_object_or_not_at_all(tmp_path: Path) -> None:
    settings = {"bos_token": None, "eos_token": {"content": "<|im_end|>", "lstrip": False}}
    folder = write_tiny_folder(tmp_path / "tiny", config={"bos_token_id": 41}, tokenizer_config=settings)
    file = SafetensorsFormat().open(folder)
    ours = file.make_tokenizer()
    assert ours.bos_id is None
    assert ours.eos_id is not None
    assert ours.token_text(ours.eos_id) == "<|im_end|>"
    file.close()


def test_added_tokens_without_a_row_in_the_embedding_are_left_out() -> None:
    original = byte_level()
    size = original.get_vocab_size()
    original.add_special_tokens(["<image>"])
    description = json.loads(original.to_str())
    ours = JsonTokenizer(description, SpecialTokens(), size, "tokenizer.json")
    assert ours.vocab_size == size
    assert max(ours.encode("<image>", parse_special=True)) < size
    with pytest.raises(ModelFileError, match=f"token {size - 1} has no row in the embedding"):
        JsonTokenizer(description, SpecialTokens(), size - 1, "tokenizer.json")


def replacing(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def adding(*ids: int) -> dict[str, Any]:
    """Puts a special token of these ids before every text."""
    special = {"X": {"id": "X", "ids": ids, "tokens": ["X"] * len(ids)}}
    single = [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special}


def test_a_text_that_the_library_panics_on_fails_one_request() -> None:
    tokenizer = make(byte_level(), normalizer={**replacing("", ""), "pattern": {"Regex": "(a+)+$"}})
    assert tokenizer.encode("hello")
    with pytest.raises(InvalidRequestError, match="cannot read this text"):
        tokenizer.encode("a" * 60 + "!")


def test_an_added_token_whose_text_is_in_the_vocabulary_has_its_id_there() -> None:
    description = json.loads(byte_level().to_str())
    [text, other] = list(description["model"]["vocab"])[:2]
    added = {"id": 4000, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False}
    tokenizer = make(byte_level(), added_tokens=[added | {"normalized": False}])
    token_id = description["model"]["vocab"][text]
    assert tokenizer.token_bytes(token_id) == b""
    assert tokenizer.token_bytes(description["model"]["vocab"][other]) != b""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"type": "WordPiece"}}, "type 'WordPiece' are not supported"),
        ({"decoder": {"type": "CTC"}}, r"decodes with \['CTC'\] is not supported"),
        ({"decoder": None}, "decodes with nothing is not supported"),
    ],
)
def test_a_kind_that_cannot_be_spelled_is_named(changes: dict[str, Any], says: str) -> None:
    description = {**json.loads(byte_level().to_str()), **changes}
    if "model" in changes:
        description["model"] = {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {"[UNK]": 0},
        }
        description["added_tokens"] = []
    with pytest.raises(UnsupportedModelError, match=says):
        JsonTokenizer(description, SpecialTokens(), 1000, "tokenizer.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"added_tokens": [{"id": "3"}]},
        {"added_tokens": 7},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}},
        {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
        {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []},
        {"model": 3},
        {"normalizer": {"type": "Unknown"}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {"normalizer": {"type": "Prepend", "prepend": "x" * 65}},
        {"normalizer": {"type": "Sequence", "normalizers": [replacing("a", "a" * 5)] * 3}},
        {"post_processor": adding(100_000)},
        {"post_processor": adding(*[1] * 65)},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_description_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((ModelFileError, UnsupportedModelError)) as refusal:
        make(byte_level(), **changes)
    assert "\n" not in str(refusal.value)


def test_a_folder_without_a_tokenizer_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "tiny")
    (folder / "tokenizer.json").unlink()
    file = SafetensorsFormat().open(folder)
    with pytest.raises(ModelFileError, match=r"tokenizer.json: no such file"):
        file.make_tokenizer()
    write_json(folder / "tokenizer.json", [])
    with pytest.raises(ModelFileError, match="not a JSON object"):
        file.make_tokenizer()
    file.close()


def test_what_the_library_says_of_a_file_is_told_in_one_line() -> None:
    original = byte_level()
    model = {**json.loads(original.to_str())["model"], "merges": [["a\nb", "c"]]}
    with pytest.raises(ModelFileError, match="refuses it: Token `a b` out of vocabulary"):
        make(original, model=model)
