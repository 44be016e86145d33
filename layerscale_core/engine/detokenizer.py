"""Generated tokens to text a client can be shown, one token at a time."""

from __future__ import annotations

import codecs
from collections.abc import Collection

from layerscale_core.specs.tokenizer import Tokenizer


class IncrementalDetokenizer:
    """The text of one sequence as it grows, up to its first stop text.

    Held back until they are decided: the bytes of an unfinished UTF-8 character, and text that may become a stop text.
    What is shown depends on the bytes alone, not on how tokens cut them: bytes that cannot complete a character become
    U+FFFD as in ``bytes.decode(errors="replace")``, and the stop text that is complete first ends the text, the
    longest one where several end at the same character.

    Args:
        tokenizer: turns ids into bytes.
        stop: texts that end generation; none is empty.
        shown_ids: control tokens that are shown by their names; others show nothing.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: tuple[str, ...] = (), shown_ids: Collection[int] = frozenset()
    ) -> None:
        assert all(stop), "an empty stop text would match everywhere"
        self.stop_text: str | None = None
        self._tokenizer = tokenizer
        self._stops = stop
        self._shown_ids = shown_ids
        self._first_chars = frozenset(text[0] for text in stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, token_id: int) -> str:
        """Add a token; return the text that can now be shown: "" once ``stop_text`` is set."""
        if token_id in self._shown_ids:
            return self._advance(self._tokenizer.token_text(token_id).encode(), final=False)
        return self._advance(self._tokenizer.token_bytes(token_id), final=False)

    def flush(self) -> str:
        """End the sequence; return what was held back. An unfinished character shows as U+FFFD."""
        text = self._advance(b"", final=True) + self._held
        self._held = ""
        return text

    def _advance(self, data: bytes, *, final: bool) -> str:
        if self.stop_text is not None:
            return ""
        text = self._decoder.decode(data, final)
        if not self._stops:
            return text
        text = self._held + text
        self._held = ""
        end = self._find_stop(text)
        if end is None:
            end = self._settled_len(text)
            self._held = text[end:]
        return text[:end]

    def _find_stop(self, text: str) -> int | None:
        """Record the first stop text to be complete in ``text`` and return where it starts."""
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if not found:
            return None
        end, start = min(found)
        self.stop_text = text[start:end]
        return start

    def _settled_len(self, text: str) -> int:
        """Length of ``text`` without the longest tail that some stop text begins with."""
        for start, char in enumerate(text):
            if char in self._first_chars and any(stop.startswith(text[start:]) for stop in self._stops):
                return start
        return len(text)
