"""What one session is made of and with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from layerscale_core.engine import Engine
from layerscale_core.sessions.context import SessionContext
from layerscale_core.sessions.events import Subscribers
from layerscale_core.sessions.flash import FlashBoard
from layerscale_core.sessions.stream import EntryRing
from layerscale_core.sessions.window import EntryWindow
from layerscale_core.specs.stream_type import StreamType
from layerscale_core.specs.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParts:
    """What one session is made of and with.

    Attributes:
        separator: tokens of a line end.
        prefill_chunk: most tokens that background work computes before a question may go first.
        has_settled: told the session's id, on the engine thread, when its batch is done and the next may come.
        max_waiting: requests that wait in the session.
        wall_clock: Unix seconds.
    """

    session_id: str
    label: str = ""
    engine: Engine
    tokenizer: Tokenizer
    stream_type: StreamType
    context: SessionContext
    ring: EntryRing
    window: EntryWindow
    flash: FlashBoard = field(default_factory=FlashBoard)
    subscribers: Subscribers = field(default_factory=Subscribers)
    separator: tuple[int, ...]
    prefill_chunk: int
    has_settled: Callable[[str], None]
    max_waiting: int = 1024
    wall_clock: Callable[[], float] = time.time

    def now(self) -> int:
        """Whole Unix seconds."""
        return int(self.wall_clock())
