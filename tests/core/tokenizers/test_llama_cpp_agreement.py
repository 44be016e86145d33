"""Token for token the same as llama.cpp, on the same file."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.specs import Tokenizer
from layerscale_core.tokenizers import tokenizer_from_gguf
from layerscale_core.tokenizers.pre_tokenizers import PRE_TOKENIZERS
from tests.core.tokenizers.conftest import LlamaCpp, tokenizer_of
from tests.core.tokenizers.nasty_strings import NASTY_STRINGS, SPECIAL_LOOKALIKES
from tests.core.tokenizers.vocab_gguf import (
    Metadata,
    byte_level_metadata,
    sentencepiece_metadata,
    write_vocab_gguf,
)

ORDINARY_STRINGS = [text for text in NASTY_STRINGS if text not in SPECIAL_LOOKALIKES]

# Characters that every Unicode version in play knows: the two engines were built from different ones.
KNOWN_CHARACTERS = st.characters(exclude_categories=["Cs"]).filter(
    lambda char: unicodedata.ucd_3_2_0.category(char) != "Cn"
)
FRAGMENTS = st.sampled_from([*NASTY_STRINGS, *" \n\t'1aA.é", "<|im_start|>", "<|im_end|>", "</s>", "'s", "  ", "\r\n"])
TEXTS = st.one_of(st.text(KNOWN_CHARACTERS, max_size=40), st.lists(FRAGMENTS, max_size=5).map("".join))


def disagreements(tokenizer: Tokenizer, llama_cpp: LlamaCpp, texts: Sequence[str]) -> list[tuple[str, bool]]:
    """The texts, with whether special tokens are read in them, that the two engines cut differently."""
    found = []
    for parse_special in (False, True):
        ours = [tokenizer.encode(text, add_special=False, parse_special=parse_special) for text in texts]
        theirs = llama_cpp.tokenize(texts, add_special=False, parse_special=parse_special)
        if list(itertools.chain(*ours)) != theirs:
            found += [
                (text, parse_special)
                for text, ids in zip(texts, ours, strict=True)
                if ids != llama_cpp.tokenize(text, add_special=False, parse_special=parse_special)
            ]
    return found


@pytest.mark.model
def test_real_model_on_nasty_strings(real_tokenizer: Tokenizer, real_llama_cpp: LlamaCpp) -> None:
    assert disagreements(real_tokenizer, real_llama_cpp, NASTY_STRINGS) == []


@pytest.mark.model
@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=TEXTS, parse_special=st.booleans())
def test_real_model_on_random_text(
    text: str, parse_special: bool, real_tokenizer: Tokenizer, real_llama_cpp: LlamaCpp
) -> None:
    expected = real_llama_cpp.tokenize(text, parse_special=parse_special)
    assert real_tokenizer.encode(text, parse_special=parse_special) == expected


def is_cut_otherwise_by_llama_cpp(pre: str, text: str) -> bool:
    """Whether llama.cpp only approximates the model's own expression for such a text."""
    categories = {unicodedata.category(char)[0] for char in text if not char.isascii()}
    cased = any(unicodedata.category(char) in ("Lu", "Ll", "Lt") for char in text if not char.isascii())
    if pre in ("tekken", "gpt-4o", "llama4", "kanana2", "minimax-m2"):
        # It takes a combining mark for punctuation, and every letter beyond ASCII for both upper and lower case.
        return "M" in categories or cased
    # It replaces spaces beyond ASCII before these models' character ranges, which contain them, are applied.
    return pre in ("deepseek-llm", "deepseek-coder") and "Z" in categories


@pytest.fixture(scope="module")
def byte_level() -> Metadata:
    return byte_level_metadata(ORDINARY_STRINGS)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_pre_tokenizer_on_nasty_strings(pre: str, byte_level: Metadata, tmp_path: Path) -> None:
    metadata = byte_level | {"tokenizer.ggml.pre": pre}
    tokenizer = tokenizer_from_gguf(metadata, "model.gguf")
    texts = [text for text in NASTY_STRINGS if not is_cut_otherwise_by_llama_cpp(pre, text)]
    llama_cpp = LlamaCpp(write_vocab_gguf(tmp_path / "model.gguf", metadata))
    try:
        assert disagreements(tokenizer, llama_cpp, texts) == []
    finally:
        llama_cpp.close()


@pytest.mark.parametrize("pre", ["smollm", "llama-bpe"])
@pytest.mark.parametrize("flags", [{}, {"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": False}])
def test_added_tokens(pre: str, flags: dict[str, bool], byte_level: Metadata, tmp_path: Path) -> None:
    metadata = byte_level | {"tokenizer.ggml.pre": pre} | {f"tokenizer.ggml.{key}": on for key, on in flags.items()}
    tokenizer = tokenizer_from_gguf(metadata, "model.gguf")
    llama_cpp = LlamaCpp(write_vocab_gguf(tmp_path / "model.gguf", metadata))
    try:
        for text in ("", "a", "<s>a</s>"):
            assert tokenizer.encode(text, parse_special=True) == llama_cpp.tokenize(text, parse_special=True)
    finally:
        llama_cpp.close()


@pytest.fixture(scope="module", params=[True, False], ids=["space-prefix", "no-space-prefix"])
def sentencepiece(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tokenizer, LlamaCpp]]:
    metadata = sentencepiece_metadata(ORDINARY_STRINGS) | {"tokenizer.ggml.add_space_prefix": request.param}
    tokenizer = tokenizer_from_gguf(metadata, "model.gguf")
    llama_cpp = LlamaCpp(write_vocab_gguf(tmp_path_factory.mktemp("sentencepiece") / "model.gguf", metadata))
    yield tokenizer, llama_cpp
    llama_cpp.close()


def test_sentencepiece_on_nasty_strings(sentencepiece: tuple[Tokenizer, LlamaCpp]) -> None:
    assert disagreements(*sentencepiece, NASTY_STRINGS) == []


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=TEXTS, parse_special=st.booleans())
def test_sentencepiece_on_random_text(
    text: str, parse_special: bool, sentencepiece: tuple[Tokenizer, LlamaCpp]
) -> None:
    tokenizer, llama_cpp = sentencepiece
    expected = llama_cpp.tokenize(text, parse_special=parse_special)
    assert tokenizer.encode(text, parse_special=parse_special) == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text("ab =", max_size=60))
def test_sentencepiece_on_runs(text: str, sentencepiece: tuple[Tokenizer, LlamaCpp]) -> None:
    tokenizer, llama_cpp = sentencepiece
    assert tokenizer.encode(text) == llama_cpp.tokenize(text)


@pytest.fixture(scope="module")
def gemma(gemma_model_path: Path) -> Iterator[tuple[Tokenizer, LlamaCpp]]:
    llama_cpp = LlamaCpp(gemma_model_path)
    yield tokenizer_of(gemma_model_path), llama_cpp
    llama_cpp.close()


@pytest.mark.model
def test_gemma_on_nasty_strings(gemma: tuple[Tokenizer, LlamaCpp]) -> None:
    assert disagreements(*gemma, NASTY_STRINGS) == []


GEMMA_FRAGMENTS = st.sampled_from(["<start_of_turn>", "<unused7>", "<table>", "</h1>", "<b", "▁", "\n\n", "\t\t"])


@pytest.mark.model
@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    text=st.one_of(TEXTS, st.lists(FRAGMENTS | GEMMA_FRAGMENTS, max_size=8).map("".join)), parse_special=st.booleans()
)
def test_gemma_on_random_text(text: str, parse_special: bool, gemma: tuple[Tokenizer, LlamaCpp]) -> None:
    tokenizer, llama_cpp = gemma
    expected = llama_cpp.tokenize(text, parse_special=parse_special)
    assert tokenizer.encode(text, parse_special=parse_special) == expected
