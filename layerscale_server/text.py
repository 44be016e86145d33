"""Text from outside, made safe to print."""

from __future__ import annotations

import re

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could end a line, move the cursor, turn the writing direction, or not be encoded."""

_CREDENTIALS = re.compile(r"(?<=://)[^/\s]+@")


def printable(text: str) -> str:
    """The text on one line, with everything escaped that could forge another or hide something."""
    return _CONTROLS.sub(_escape, text)


def without_credentials(text: str) -> str:
    """The text with the user and password taken out of every URL."""
    return _CREDENTIALS.sub("", text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
