"""The index of a vocabulary: that its groups change nothing, and what is kept of it."""

from __future__ import annotations

import json
from typing import Any

from llguidance import LLMatcher, LLTokenizer

from layerscale_core.constraints.token_table import _TokenizerView, make_token_table
from layerscale_core.specs import Tokenizer
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.memory import kept_by


class WordTokenizer(ByteTokenizer):
    """Besides the bytes, words of up to forty letters and others that begin or end with what a string escapes."""

    WORDS = tuple(
        start + letter * length + end
        for start in ("", '"')
        for letter in "abcdefgh "
        for length in range(2, 41)
        for end in ("", '"', "\\", "\n", '",')
    )

    def __init__(self) -> None:
        super().__init__()
        self._first_word = self.vocab_size
        self.vocab_size += len(self.WORDS)

    def token_bytes(self, token_id: int) -> bytes:
        if token_id < self._first_word:
            return super().token_bytes(token_id)
        return self.WORDS[token_id - self._first_word].encode()


def masks(table: LLTokenizer, schema: object, text: str) -> list[bytes]:
    """What is allowed before each byte of a text."""
    matcher = LLMatcher(table, LLMatcher.grammar_from_json_schema(json.dumps(schema)), log_level=0)
    found = []
    for token_id in text.encode():
        found.append(matcher.compute_bitmask())
        assert matcher.consume_token(token_id)
    return found


def table_without_groups(tokenizer: Tokenizer) -> LLTokenizer:
    view: Any = _TokenizerView(tokenizer)
    return LLTokenizer(view, eos_token=sorted(tokenizer.stop_ids), slices=[])


def test_allows_the_same_tokens_as_without_groups() -> None:
    tokenizer = WordTokenizer()
    plain, table = table_without_groups(tokenizer), make_token_table(tokenizer)
    for max_len in (3, 15, 16, 17, 18, 40, None):
        bound = {} if max_len is None else {"maxLength": max_len}
        schema = {"type": "object", "properties": {"a": {"type": "string", **bound}}, "required": ["a"]}
        assert masks(table, schema, '{"a":"bb"') == masks(plain, schema, '{"a":"bb"')


def test_keeps_no_copy_of_the_tokens() -> None:
    tokenizer = WordTokenizer()
    make_token_table(tokenizer)  # imports
    table, kept = kept_by(lambda: make_token_table(tokenizer))
    assert table.vocab_size == tokenizer.vocab_size
    assert kept < 10 * tokenizer.vocab_size
