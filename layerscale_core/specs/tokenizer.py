"""Text to token ids and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """A model's tokenizer. Immutable; safe from any thread."""

    @property
    def vocab_size(self) -> int:
        """Number of ids; every id is below it."""
        ...

    @property
    def bos_id(self) -> int | None:
        """Beginning of sequence."""
        ...

    @property
    def eos_id(self) -> int | None:
        """End of sequence, as the model names it first."""
        ...

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every id that ends generation: end of sequence, end of turn and their like."""
        ...

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            add_special: add BOS (and EOS) where the model's metadata says so.
            parse_special: read special tokens' text as the tokens; otherwise it is plain text.

        Raises:
            InvalidRequestError: it cannot read this text.
        """
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to the output, as UTF-8 bytes, possibly part of a character; b"" for control tokens."""
        ...

    def token_text(self, token_id: int) -> str:
        """The vocabulary's text of a token, control tokens included, for templates and people (``<|im_end|>``)."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of a sequence; invalid UTF-8 becomes U+FFFD; control tokens show only without ``skip_special``."""
        ...
