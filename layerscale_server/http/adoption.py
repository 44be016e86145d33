"""The ids by which agents name their conversations, so that a session can be adopted for each (``--adopt-sessions``)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

SESSION_HEADERS = (
    "x-layerscale-session",
    "x-claude-code-session-id",
    "x-opencode-session",
    "session-id",
    "session_id",
    "x-session-id",
    "x-session-affinity",
)
"""Headers in which agents name a conversation, the first that is there counts: ours, those of Claude Code, of opencode,
of Codex (both spellings), and what proxies and other agents have made common."""

_MIN_ID, _MAX_ID = 8, 256

_VOLATILE_LINES = re.compile(r"\A(?:x-anthropic-[a-z-]+:[^\n]*(?:\n|\Z))+")


def without_volatile_lines(system: str) -> str:
    """A system text without the lines at its beginning that are meant for a provider's books.

    Claude Code writes ``x-anthropic-billing-header: …; cch=…;`` there, another one in every request, so that no two
    prompts would begin alike.
    """
    return _VOLATILE_LINES.sub("", system)


def label_of(headers: Mapping[str, str], system: str) -> str | None:
    """What a conversation is found by; None: the client does not name it.

    An agent's helpers send its id too, with instructions of their own: they are conversations of their own.

    Args:
        headers: by lower-case name.
        system: the system text.
    """
    name = next((each for each in SESSION_HEADERS if each in headers), None)
    if name is None or not _MIN_ID <= len(headers[name]) <= _MAX_ID:
        return None
    return hashlib.sha256(f"{headers[name]}\0{system}".encode()).hexdigest()[:32]
