"""What subscribers of a session are told, as server-sent events and as WebSocket frames write it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from layerscale_core.sessions import Connected, DataUpdated, FlashReady


@dataclass(frozen=True, eq=False)
class Message:
    """A named message, written at most once in each dialect however many are told.

    All but ASCII is escaped, because a client may split lines at any Unicode line end.
    """

    type: str
    data: Mapping[str, Any]

    @cached_property
    def sse(self) -> bytes:
        """The frame of a server-sent event."""
        return f"event: {self.type}\ndata: {_json({'type': self.type, **self.data})}\n\n".encode()

    @cached_property
    def text(self) -> str:
        """The text frame of a WebSocket."""
        return _json({"type": self.type, "data": self.data})


def message_of(event: Connected | DataUpdated | FlashReady) -> Message:
    """A session's event as its subscribers are told of it."""
    if isinstance(event, Connected):
        return Message(
            "connected",
            {
                "session_id": event.session_id,
                "data_version": event.data_version,
                "streaming": event.is_streaming,
                "flash_queries": event.num_flash_queries,
            },
        )
    if isinstance(event, DataUpdated):
        return Message(
            "data_updated",
            {"data_version": event.data_version, "data_count": event.data_count, "pos_next": event.pos_next},
        )
    return Message(
        "flash_ready",
        {
            "id": event.id,
            "query": event.query,
            "value": event.value,
            "data_version": event.data_version,
            "confidence": event.confidence if math.isfinite(event.confidence) else 0.0,
            "evaluated_at": event.evaluated_at,
        },
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
