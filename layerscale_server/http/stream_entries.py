"""Entries from a client to a session's stream: checked as a whole, then enqueued at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerscale_core.errors import InvalidRequestError
from layerscale_core.sessions import Entry, PushAck, Session, Sessions
from layerscale_core.specs import StreamType
from layerscale_server.http.prompts import off_loop

_INLINE_ENTRIES = 100
"""So many entries are checked on the event loop, in less than a millisecond."""


async def push_entries(sessions: Sessions, session: Session, data: Sequence[Mapping[str, Any]]) -> PushAck:
    """Enqueue entries, all of which must be right; never waits for the model.

    Raises:
        InvalidRequestError: names the first entry that is not, and its field; nothing is enqueued.
        NotFoundError: the session was deleted meanwhile.
    """
    if len(data) <= _INLINE_ENTRIES:
        entries = _validated(session.stream_type, data)
    else:
        entries = await off_loop(_validated, session.stream_type, data)
    return sessions.push(sessions.get(session.session_id), entries)


def _validated(stream_type: StreamType, data: Sequence[Mapping[str, Any]]) -> list[Entry]:
    entries: list[Entry] = []
    for index, entry in enumerate(data):
        try:
            entries.append(stream_type.validate(entry))
        except InvalidRequestError as error:
            raise InvalidRequestError(f"data.{index}: {error}", param="data") from None
    return entries
