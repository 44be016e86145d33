"""Where a conversation goes on: in the session it names, in one adopted for it (``--adopt-sessions``), or in none."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from layerscale_core.sessions import Session
from layerscale_server.http.conversations import Conversation, TemplateMessage
from layerscale_server.logging import name_session
from layerscale_server.state import LoadedModel

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

_VOLATILE_LINES = re.compile(r"\A(?:x-anthropic-[a-z-]+:(?: ?[a-z_]+=[^;\s]*;)+\s*)+")


async def find_session(
    model: LoadedModel,
    conversation: Conversation,
    headers: Mapping[str, str],
    session_id: str | None,
    chain: str | None = None,
) -> tuple[Session | None, Conversation]:
    """The session of a conversation, and what of the conversation the model is shown.

    Args:
        headers: of the request, by lower-case name.
        session_id: of the session that it names itself.
        chain: what names the conversation if no header does.

    Raises:
        NotFoundError: there is no session with that id.
        ShuttingDownError: the engine has stopped.
    """
    if session_id is not None:
        name_session(session_id)
        return model.sessions.get(session_id), conversation
    if model.adoption is None:
        return None, conversation
    conversation = replace(conversation, messages=without_volatile_lines(conversation.messages))
    label = label_of(headers, conversation.messages, chain)
    session = None if label is None else await asyncio.wrap_future(model.adoption.adopt(label))
    if session is not None:
        name_session(session.session_id)
    return session, conversation


def without_volatile_lines(messages: Sequence[TemplateMessage]) -> Sequence[TemplateMessage]:
    """A conversation without what stands before its system prompt for the books of a provider.

    Claude Code writes ``x-anthropic-billing-header: …; cch=…;`` there, another one in every request, so that no two
    prompts would begin alike.
    """
    if not messages or messages[0]["role"] != "system":
        return messages
    system, *others = messages
    return [{**system, "content": _VOLATILE_LINES.sub("", system["content"])}, *others]


def label_of(headers: Mapping[str, str], messages: Sequence[TemplateMessage], chain: str | None = None) -> str | None:
    """What a conversation is found by; None: nothing names it.

    An agent's helpers send its id too, with instructions of their own: they are conversations of their own.
    """
    named = next((headers[each] for each in SESSION_HEADERS if each in headers), chain)
    if named is None or not _MIN_ID <= len(named) <= _MAX_ID:
        return None
    system = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
    return hashlib.sha256(f"{named}\0{system}".encode()).hexdigest()[:32]
