"""The texts of special tokens, found in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_Node = dict[str, "_Node"]
"""What may follow a beginning, by its next character; the empty text where a token ends."""


class SpecialTexts:
    """Finds whole tokens in a text: the leftmost, and the longest where several begin.

    Args:
        ids: token id by its text; no text is empty.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = dict(ids)
        self._root: _Node = {}
        for text in ids:
            node = self._root
            for char in text:
                node = node.setdefault(char, {})
            node[""] = {}
        self._beginning = re.compile("|".join(map(_two_characters, self._root.items())) or "(?!)")

    def split(self, text: str) -> Iterator[tuple[str, int | None]]:
        """The text before each token, with the token's id; last what is left, with None."""
        start = search_from = 0
        while (found := self._beginning.search(text, search_from)) is not None:
            begin = found.start()
            end = self._end(text, begin)
            if end is None:
                search_from = begin + 1
                continue
            yield text[start:begin], self._ids[text[begin:end]]
            start = search_from = end
        yield text[start:], None

    def _end(self, text: str, begin: int) -> int | None:
        """Where the longest token that begins here ends."""
        node, end = self._root, None
        for position in range(begin, len(text)):
            if (following := node.get(text[position])) is None:
                break
            node = following
            if "" in node:
                end = position + 1
        return end


def _two_characters(first: tuple[str, _Node]) -> str:
    """A first character, where one that may follow it does: runs of spaces are tokens, and most spaces are single."""
    char, node = first
    return re.escape(char) if "" in node else f"{re.escape(char)}(?=[{re.escape(''.join(node))}])"
