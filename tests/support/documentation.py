"""The documentation as tests read it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCED = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")

PAGES = [
    page.relative_to(ROOT)
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in page.parts
]
"""Every page, relative to the root of the project."""


def read(page: Path | str) -> str:
    """A page's Markdown."""
    return (ROOT / page).read_text()


def code_blocks(page: Path | str, language: str) -> list[str]:
    """The fenced blocks of one language on a page."""
    return [match["code"] for match in _FENCED.finditer(read(page)) if match["language"] == language]


def inline_code(text: str) -> list[str]:
    """What stands between single backquotes, outside fenced blocks."""
    return _INLINE.findall(_FENCED.sub("", text))
