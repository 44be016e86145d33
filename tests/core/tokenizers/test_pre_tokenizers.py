"""The cuts that llama.cpp only approximates: here the models' own expressions decide."""

from __future__ import annotations

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence, Split

from layerscale_core.tokenizers.pre_tokenizers import PRE_TOKENIZERS


def words(pre: str, text: str) -> list[str]:
    cut = Sequence([Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[pre].patterns])
    return [word for word, _ in cut.pre_tokenize_str(text)]


@pytest.mark.parametrize("pre", ["tekken", "gpt-4o"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("camelCase HTTPServer", ["camel", "Case", " HTTPServer"]),
        ("éCOLE École", ["é", "COLE", " École"]),
        ("cafe\u0301 नमस्ते", ["cafe\u0301", " नमस्ते"]),
        ("a/b/\n", ["a", "/b", "/\n"]),
    ],
)
def test_words_with_case_and_marks(pre: str, text: str, expected: list[str]) -> None:
    assert words(pre, text) == expected


def test_contractions_belong_to_the_word_before_in_gpt_4o_alone() -> None:
    assert words("gpt-4o", "It's") == ["It's"]
    assert words("tekken", "It's") == ["It", "'s"]


@pytest.mark.parametrize("pre", ["deepseek-llm", "deepseek-coder"])
def test_spaces_beyond_ascii_are_words_in_the_first_deepseek_models(pre: str) -> None:
    assert words(pre, "a\u2003b") == ["a", "\u2003", "b"]


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_cuts_lose_nothing(pre: str) -> None:
    text = "It's 12345 naïve\u2003日本語\r\n\t\tx == y;  // 🙂 \n"
    assert "".join(words(pre, text)) == text
