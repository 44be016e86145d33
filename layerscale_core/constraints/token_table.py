"""The model's tokens, as llguidance wants to know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from layerscale_core.specs.tokenizer import Tokenizer
from layerscale_core.texts import PackedBytes

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_ANCHOR = "\n"

_SLICES = [r'[^"\\\x00-\x1F\x7F]{1,16}']
"""What the tokens of a group have in common, so that they are tried as one: to be a short part of a JSON string.

A group is an index as large as that of all tokens. With the 262,144 tokens of Gemma llguidance's own four take 50 MB
and 0.4 s more, and allow no string faster but those of fewer than 16 characters (0.7 instead of 1.5 ms a token).
"""


def make_token_table(tokenizer: Tokenizer) -> LLTokenizer:
    """Index every token by its bytes. Holds the interpreter's lock, up to two seconds for the largest vocabularies."""
    from llguidance import LLTokenizer  # noqa: PLC0415 (heavy, and needed by those alone who constrain an answer)

    view: Any = _TokenizerView(tokenizer)  # read by its attributes
    table = LLTokenizer(view, eos_token=sorted(tokenizer.stop_ids) or None, slices=_SLICES)
    view.tokens = ()  # the table has read them, and keeps the view for its cuts
    return table


class _TokenizerView:
    """The attributes that llguidance reads, once, and the cut of forced text, which it asks for as it goes."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.eos_id
        self.bos_token_id = tokenizer.bos_id
        self.special_token_ids: list[int] = []
        self.tokens: Sequence[bytes] = PackedBytes(map(self._name, range(tokenizer.vocab_size)))
        self._anchor_ids = tokenizer.encode(_ANCHOR, add_special=False)

    def __call__(self, text: str) -> list[int]:
        """The tokens of a text in the middle of an answer; none where they would spell anything else."""
        ids = self._tokenizer.encode(text, add_special=False)
        if self._spells(ids, text):
            return ids
        # Some tokenizers put a space before a text; behind a line end they do not.
        ids = self._tokenizer.encode(_ANCHOR + text, add_special=False)
        num_before = len(self._anchor_ids)
        rest = ids[num_before:]
        return rest if ids[:num_before] == self._anchor_ids and self._spells(rest, text) else []

    def _name(self, token_id: int) -> bytes:
        """A token's bytes; where it adds nothing to the output its text, for grammars, which a hole does not have."""
        if spelled := self._tokenizer.token_bytes(token_id):
            return spelled
        text = self._tokenizer.token_text(token_id)
        if text:
            self.special_token_ids.append(token_id)
        return text.encode()

    def _spells(self, token_ids: list[int], text: str) -> bool:
        return b"".join(map(self._tokenizer.token_bytes, token_ids)) == text.encode()
