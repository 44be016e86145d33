"""Where a JSON object that arrives in pieces ends."""

from __future__ import annotations

import re

_MARKS = re.compile(r'\\.|["{}\[\]]', re.DOTALL)


class ObjectEnd:
    """Finds the bracket that closes the first one; what lies between is taken to be JSON."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False

    def find(self, text: str) -> int | None:
        """The index after the end in this next piece; None if it is not in it."""
        start = 0
        if self._is_escaped and text:
            self._is_escaped, start = False, 1
        for mark in _MARKS.finditer(text, start):
            if self._sees(mark.group()):
                return mark.end()
        self._is_escaped = self._is_in_string and self._ends_in_escape(text, start)
        return None

    def _sees(self, mark: str) -> bool:
        if mark == '"':
            self._is_in_string = not self._is_in_string
        elif not self._is_in_string and mark in "{[":
            self._depth += 1
        elif not self._is_in_string and mark in "}]":
            self._depth -= 1
            return self._depth == 0
        return False

    @staticmethod
    def _ends_in_escape(text: str, start: int) -> bool:
        """Whether the last character is a backslash that escapes what comes next."""
        num_backslashes = len(text) - start - len(text[start:].rstrip("\\"))
        return num_backslashes % 2 == 1
