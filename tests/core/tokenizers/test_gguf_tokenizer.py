from __future__ import annotations

from array import array

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.specs import Tokenizer
from layerscale_core.texts import Texts
from layerscale_core.tokenizers import tokenizer_from_gguf
from layerscale_core.tokenizers.byte_level import bytes_of
from layerscale_core.tokenizers.vocabulary import TokenKind
from tests.core.tokenizers.nasty_strings import NASTY_STRINGS
from tests.core.tokenizers.vocab_gguf import Metadata, byte_level_metadata, sentencepiece_metadata

BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


@pytest.fixture(scope="module")
def byte_level() -> Metadata:
    return byte_level_metadata(NASTY_STRINGS[:40], vocab_size=400)


@pytest.fixture(scope="module")
def sentencepiece() -> Metadata:
    return sentencepiece_metadata(NASTY_STRINGS[:40], vocab_size=200)


@pytest.fixture(scope="module", params=["byte_level", "sentencepiece"])
def metadata(request: pytest.FixtureRequest) -> Metadata:
    fields: Metadata = request.getfixturevalue(request.param)
    return fields


def build(fields: Metadata, **changes: object) -> Tokenizer:
    """A tokenizer of the fields, some of them changed; None removes one."""
    changed = fields | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return tokenizer_from_gguf({key: value for key, value in changed.items() if value is not None}, "model.gguf")


def small_sentencepiece(*pieces: tuple[str, TokenKind, float], **changes: object) -> Tokenizer:
    """Unknown, BOS, EOS, bytes, then the given pieces from id 259."""
    rows = [
        ("<unk>", TokenKind.UNKNOWN, 0.0),
        ("<s>", TokenKind.CONTROL, 0.0),
        ("</s>", TokenKind.CONTROL, 0.0),
        *((text, TokenKind.BYTE, 0.0) for text in BYTE_TOKENS),
        *pieces,
    ]
    fields: Metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text for text, _, _ in rows],
        "tokenizer.ggml.token_type": [int(kind) for _, kind, _ in rows],
        "tokenizer.ggml.scores": [score for _, _, score in rows],
    }
    return build(fields, **changes)


def small_byte_level(*special: tuple[str, TokenKind], **changes: object) -> Tokenizer:
    """Letters ``a`` to ``d``, their merges ``ab`` and ``abc``, then special tokens from id 6."""
    rows = [*((text, TokenKind.NORMAL) for text in ("a", "b", "c", "d", "ab", "abc")), *special]
    fields: Metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [text for text, _ in rows],
        "tokenizer.ggml.token_type": [int(kind) for _, kind in rows],
        "tokenizer.ggml.merges": ["a b", "ab c"],
    }
    return build(fields, **changes)


def test_merges_in_order_of_rank() -> None:
    tokenizer = small_byte_level()
    assert tokenizer.encode("abcab") == [5, 4]
    assert tokenizer.vocab_size == 6
    assert tokenizer.bos_id is None
    assert tokenizer.eos_id is None


def test_whole_words_skip_merges_only_where_the_pre_tokenizer_says_so() -> None:
    merges = ["b c", "a b"]  # through these, "abc" cannot be reached
    tokens = ["a", "b", "c", "ab", "bc", "abc"]
    changes = {"tokens": tokens, "token_type": None, "merges": merges, "bos_token_id": 0, "add_bos_token": False}
    assert small_byte_level(**changes).encode("abc") == [0, 4]
    assert small_byte_level(**changes, pre="llama-bpe").encode("abc") == [5]


def test_control_tokens_are_read_only_when_asked_and_user_defined_ones_always() -> None:
    tokenizer = small_byte_level(("<c>", TokenKind.CONTROL), ("bb", TokenKind.USER_DEFINED))
    assert tokenizer.encode("a<c>bbd", parse_special=True) == [0, 6, 7, 3]
    assert tokenizer.encode("acbbd") == [0, 2, 7, 3]
    assert 6 not in tokenizer.encode("a<c>bbd")


def test_user_defined_token_within_a_control_tokens_text_is_still_read() -> None:
    tokenizer = small_byte_level(("<bb>", TokenKind.CONTROL), ("bb", TokenKind.USER_DEFINED))
    assert tokenizer.encode("<bb>") == [7]
    assert tokenizer.encode("<bb>", parse_special=True) == [6]


def test_longest_special_token_wins() -> None:
    tokenizer = small_byte_level(("<c>", TokenKind.CONTROL), ("<c>>", TokenKind.CONTROL))
    assert tokenizer.encode("<c>><c>", parse_special=True) == [7, 6]


def test_added_tokens_follow_the_metadata() -> None:
    special = [("<s>", TokenKind.CONTROL), ("</s>", TokenKind.CONTROL)]
    ids = {"bos_token_id": 6, "eos_token_id": 7}
    assert small_byte_level(*special, **ids).encode("a") == [0]
    both = small_byte_level(*special, **ids, add_bos_token=True, add_eos_token=True)
    assert both.encode("a") == [6, 0, 7]
    assert both.encode("") == [6, 7]
    assert both.encode("a", add_special=False) == [0]
    assert (both.bos_id, both.eos_id) == (6, 7)


def test_bytes_of_each_kind_of_token() -> None:
    tokenizer = small_sentencepiece(
        ("▁a", TokenKind.NORMAL, -1.0),
        ("▁x", TokenKind.USER_DEFINED, 0.0),
        ("<pad>", TokenKind.UNUSED, 0.0),
        ("é", TokenKind.NORMAL, -2.0),
        ("odd", TokenKind.UNDEFINED, 0.0),
    )
    expected = {
        0: b"",
        1: b"",
        3: b"\x00",
        258: b"\xff",
        259: b" a",
        260: "▁x".encode(),
        261: b"",
        262: "é".encode(),
        263: b"",
    }
    assert {token_id: tokenizer.token_bytes(token_id) for token_id in expected} == expected
    assert tokenizer.token_text(1) == "<s>"
    assert tokenizer.token_text(259) == "▁a"


def test_byte_level_spelling_covers_every_byte_once(byte_level: Metadata) -> None:
    tokens = byte_level["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    assert {bytes_of(token) for token in tokens if len(token) == 1} == {bytes([byte]) for byte in range(256)}
    assert bytes_of("Ġx") == b" x"
    assert bytes_of("Ċ") == b"\n"


def test_text_that_spells_no_bytes_stands_for_itself() -> None:
    assert bytes_of("<日本>") == "<日本>".encode()


def test_decode_shows_control_tokens_only_when_asked() -> None:
    tokenizer = small_byte_level(("<c>", TokenKind.CONTROL))
    assert tokenizer.decode([0, 6, 1]) == "ab"
    assert tokenizer.decode([0, 6, 1], skip_special=False) == "a<c>b"


def test_decode_replaces_invalid_bytes() -> None:
    tokenizer = small_sentencepiece()
    assert tokenizer.decode([3 + 0xE2, 3 + 0x82, 3 + 0x41]) == "\ufffdA"


def test_decode_takes_away_the_space_that_encode_puts_first() -> None:
    pieces = [("▁", TokenKind.NORMAL, -1.0), ("a", TokenKind.NORMAL, -2.0)]
    assert small_sentencepiece(*pieces).decode([1, 259, 260, 259, 260]) == "a a"
    assert small_sentencepiece(*pieces, add_space_prefix=False).decode([259, 260]) == " a"


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=24))
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_decode_gives_encoded_text_back(kind: str, text: str, byte_level: Metadata, sentencepiece: Metadata) -> None:
    fields = {"byte_level": byte_level, "sentencepiece": sentencepiece}[kind]
    tokenizer = build(fields)
    assume("▁" not in text)  # which SentencePiece cannot tell from a space
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_joins_best_score_first() -> None:
    pieces = [(text, TokenKind.NORMAL, 0.0) for text in ("▁", "a", "b", "c")]
    tokenizer = small_sentencepiece(
        *pieces, ("ab", TokenKind.NORMAL, -5.0), ("bc", TokenKind.NORMAL, -4.0), add_space_prefix=False
    )
    assert [tokenizer.token_text(token_id) for token_id in tokenizer.encode("abc", add_special=False)] == ["a", "bc"]


def test_characters_without_a_piece_become_bytes() -> None:
    tokenizer = small_sentencepiece(("▁", TokenKind.NORMAL, -1.0))
    assert tokenizer.encode("é") == [1, 259, 3 + 0xC3, 3 + 0xA9]


def test_a_run_of_characters_without_a_piece_or_bytes_becomes_the_unknown_token() -> None:
    fields: Metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "▁"],
        "tokenizer.ggml.token_type": [2, 3, 3, 1],
        "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -1.0],
    }
    assert build(fields).encode("é! é") == [1, 3, 0, 3, 0]


def test_plain_text_never_becomes_a_control_token() -> None:
    """However the vocabulary invites it: a client could otherwise end a turn from within its message."""
    pieces = [(text, TokenKind.NORMAL, -1.0 - i) for i, text in enumerate(["<", "/", "s", ">", "</", "</s", "<s"])]
    tokenizer = small_sentencepiece(*pieces, add_space_prefix=False)
    assert tokenizer.encode("</s><s>", add_special=False) == [264, 262, 265, 262]
    assert tokenizer.encode("</s><s>", add_special=False, parse_special=True) == [2, 1]


def test_stop_tokens_are_those_the_metadata_names_and_those_known_by_text() -> None:
    names = ["<|im_end|>", "<|endoftext|>", "<stop>", "<eot>", "<|im_start|>", "<|file_sep|>", "<reponame>"]
    special = [(name, TokenKind.CONTROL) for name in names]
    tokenizer = small_byte_level(*special, eos_token_id=8, eot_token_id=9)
    assert {tokenizer.token_text(token_id) for token_id in tokenizer.stop_ids} == set(names) - {"<|im_start|>"}


def test_named_fill_in_the_middle_token_replaces_those_known_by_text() -> None:
    special = [("<|file_sep|>", TokenKind.CONTROL), ("<other>", TokenKind.CONTROL)]
    assert small_byte_level(*special, fim_sep_token_id=7).stop_ids == {7}
    assert small_byte_level(*special).stop_ids == {6}


@pytest.mark.parametrize(
    ("texts", "stops"),
    [
        (["<|end|>"], ["<|end|>"]),
        (["<|end|>", "<|call|>"], ["<|end|>", "<|call|>"]),
        (["<|end|>", "<|call|>", "<|return|>"], ["<|call|>", "<|return|>"]),
        (["<|end|>", "<|calls|>", "<|flush|>"], ["<|calls|>", "<|flush|>"]),
    ],
)
def test_end_of_a_message_stops_only_where_it_ends_the_turn(texts: list[str], stops: list[str]) -> None:
    tokenizer = small_byte_level(*((text, TokenKind.CONTROL) for text in texts))
    assert sorted(tokenizer.token_text(token_id) for token_id in tokenizer.stop_ids) == sorted(stops)


def test_stop_token_of_another_kind_is_treated_as_control() -> None:
    tokenizer = small_byte_level(("<|im_end|>", TokenKind.USER_DEFINED), ("<|fim_prefix|>", TokenKind.NORMAL))
    assert tokenizer.token_bytes(6) == b""
    assert tokenizer.token_bytes(7) == b""
    assert 6 not in tokenizer.encode("<|im_end|>")
    assert tokenizer.encode("<|im_end|>", parse_special=True) == [6]


@pytest.mark.model
def test_real_models_stop_tokens(real_tokenizer: Tokenizer) -> None:
    """Those that llama.cpp prints as its end-of-generation tokens for this file."""
    texts = {real_tokenizer.token_text(token_id) for token_id in real_tokenizer.stop_ids}
    assert texts == {"<|endoftext|>", "<|im_end|>", "<reponame>"}
    assert (real_tokenizer.bos_id, real_tokenizer.eos_id, real_tokenizer.vocab_size) == (1, 2, 49152)


def test_holes_in_the_vocabulary_are_never_encoded_and_add_nothing() -> None:
    tokenizer = small_byte_level(("", TokenKind.NORMAL), ("", TokenKind.CONTROL))
    assert tokenizer.vocab_size == 8
    assert tokenizer.token_bytes(6) == b""
    assert tokenizer.encode("abd", parse_special=True) == [4, 3]


def test_arrays_may_be_packed(sentencepiece: Metadata) -> None:
    tokens, kinds, scores = (sentencepiece[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type", "scores"))
    arrays = {"tokens": Texts.of(tokens), "token_type": array("i", kinds), "scores": array("f", scores)}
    assert build(sentencepiece, **arrays).encode("Hello") == build(sentencepiece).encode("Hello")


@pytest.mark.parametrize("model", ["bert", "t5", "rwkv", "plamo2", "gemma4", "none", ""])
def test_other_kinds_of_tokenizer_are_refused_by_name(model: str, byte_level: Metadata) -> None:
    with pytest.raises(UnsupportedModelError, match=f"tokenizer model '{model}' is not supported"):
        build(byte_level, model=model)


def test_unknown_pre_tokenizer_is_refused_with_the_choices(byte_level: Metadata) -> None:
    with pytest.raises(UnsupportedModelError, match=r"pre-tokenizer 'frob' is not supported; supported: .*llama-bpe"):
        build(byte_level, pre="frob")


def test_missing_pre_tokenizer_is_the_default_one(byte_level: Metadata) -> None:
    text = "Hello, world! 12345"
    assert build(byte_level, pre=None).encode(text) == build(byte_level, pre="default").encode(text)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": None}, "model"),
        ({"model": 1}, "model"),
        ({"tokens": None}, "tokens"),
        ({"tokens": []}, "tokens"),
        ({"tokens": "abc"}, "tokens"),
        ({"tokens": ["a", 1]}, "tokens"),
        ({"tokens": ["a", "b", "a"], "token_type": None}, "tokens"),
        ({"tokens": ["a", "\udc80"], "token_type": None}, "tokens"),
        ({"token_type": [1]}, "token_type"),
        ({"token_type": "normal"}, "token_type"),
        ({"token_type": array("f", [1.0])}, "token_type"),
        ({"tokens": array("i", [1])}, "tokens"),
        ({"tokens": Texts.of([])}, "tokens"),
        ({"bos_token_id": -1}, "bos_token_id"),
        ({"bos_token_id": 10**9}, "bos_token_id"),
        ({"bos_token_id": True}, "bos_token_id"),
        ({"eot_token_id": 2**32}, "eot_token_id"),
        ({"fim_pad_token_id": "x"}, "fim_pad_token_id"),
        ({"add_bos_token": 1}, "add_bos_token"),
    ],
)
def test_inconsistent_metadata_is_refused_by_field(changes: dict[str, object], field: str, metadata: Metadata) -> None:
    with pytest.raises(ModelFileError) as caught:
        build(metadata, **changes)
    assert caught.value.field == f"tokenizer.ggml.{field}"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"merges": None}, "merges"),
        ({"merges": ["a"]}, "merges"),
        ({"merges": ["a missing"]}, "merges"),
        ({"merges": ["c d"]}, "merges"),
        ({"merges": ["\udcff b"]}, "merges"),
        ({"merges": [("a", "b")]}, "merges"),
        ({"pre": 7}, "pre"),
        ({"token_type": [1, 1, 1, 1, 1, 7]}, "token_type"),
        ({"token_type": [1, 1, 1, 1, 1, 6]}, "tokens"),
        ({"add_bos_token": True}, "bos_token_id"),
        ({"add_eos_token": True}, "eos_token_id"),
    ],
)
def test_inconsistent_byte_level_metadata_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        small_byte_level(**changes)
    assert caught.value.field == f"tokenizer.ggml.{field}"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scores": None}, "scores"),
        ({"scores": [0.0]}, "scores"),
        ({"scores": [float("nan")] * 260}, "scores"),
        ({"scores": [0] * 260}, "scores"),
        ({"add_space_prefix": "no"}, "add_space_prefix"),
        ({"token_type": [1] * 260}, "tokens"),
    ],
)
def test_inconsistent_sentencepiece_metadata_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        small_sentencepiece(("▁", TokenKind.NORMAL, -1.0), **changes)
    assert caught.value.field == f"tokenizer.ggml.{field}"


def test_piece_too_long_to_be_cut_in_every_way_is_refused() -> None:
    with pytest.raises(ModelFileError, match="longer than 256 characters"):
        small_sentencepiece(("a" * 257, TokenKind.NORMAL, -1.0))
    small_sentencepiece(("語" * 256, TokenKind.NORMAL, -1.0))


def test_long_runs_are_encoded_whole(metadata: Metadata) -> None:
    tokenizer = build(metadata)
    for text in ("a" * 100_000, " " * 100_000, "ab" * 50_000, "\n" * 100_000):
        assert tokenizer.decode(tokenizer.encode(text)).replace(" ", "") == text.replace(" ", "")
