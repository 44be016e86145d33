"""Sessions: contexts that stay in the KV cache, streams that are computed as they arrive, questions answered ahead."""

from layerscale_core.sessions.adoption import Adoption
from layerscale_core.sessions.durability import Capture, SavedSessions
from layerscale_core.sessions.events import Connected, DataUpdated, FlashReady, SessionClosed, SessionEvent, Subscriber
from layerscale_core.sessions.flash import (
    DEFAULT_ANSWER_TOKENS,
    MAX_ANSWER_TOKENS,
    MAX_QUERIES,
    FlashAnswer,
    FlashQuery,
)
from layerscale_core.sessions.limits import SessionLimits
from layerscale_core.sessions.new_session import NewFlashQuery, NewSession
from layerscale_core.sessions.prompts import ChatPrompt, NoPrompt, Prompt, TextPrompt
from layerscale_core.sessions.saved_state import Fingerprint
from layerscale_core.sessions.session import Session
from layerscale_core.sessions.sessions import Sessions
from layerscale_core.sessions.state_directory import StateDirectory
from layerscale_core.sessions.stream import COALESCING_S, Entry, PushAck, StreamCounts, StreamTotals
from layerscale_core.sessions.turns import Turn, TurnFinished
from layerscale_core.sessions.view import SessionView

__all__ = [
    "COALESCING_S",
    "DEFAULT_ANSWER_TOKENS",
    "MAX_ANSWER_TOKENS",
    "MAX_QUERIES",
    "Adoption",
    "Capture",
    "ChatPrompt",
    "Connected",
    "DataUpdated",
    "Entry",
    "Fingerprint",
    "FlashAnswer",
    "FlashQuery",
    "FlashReady",
    "NewFlashQuery",
    "NewSession",
    "NoPrompt",
    "Prompt",
    "PushAck",
    "SavedSessions",
    "Session",
    "SessionClosed",
    "SessionEvent",
    "SessionLimits",
    "SessionView",
    "Sessions",
    "StateDirectory",
    "StreamCounts",
    "StreamTotals",
    "Subscriber",
    "TextPrompt",
    "Turn",
    "TurnFinished",
]
