"""How a model converses: tools offered in its prompts, and answers taken apart into reasoning, text and calls."""

from layerscale_core.dialogue.answer import AnsweredCall, SortedAnswer
from layerscale_core.dialogue.call_syntax import JSON, CallSyntax, WrittenCall
from layerscale_core.dialogue.dialogue import AnswerPlan, Dialogue
from layerscale_core.dialogue.parser import AnswerParser
from layerscale_core.dialogue.pieces import (
    CallArguments,
    CallBegun,
    CallEnded,
    Piece,
    ReasoningPiece,
    TextPiece,
)
from layerscale_core.dialogue.reasoning import ReasoningMarkers
from layerscale_core.dialogue.tools import Tool, ToolOffer

__all__ = [
    "JSON",
    "AnswerParser",
    "AnswerPlan",
    "AnsweredCall",
    "CallArguments",
    "CallBegun",
    "CallEnded",
    "CallSyntax",
    "Dialogue",
    "Piece",
    "ReasoningMarkers",
    "ReasoningPiece",
    "SortedAnswer",
    "TextPiece",
    "Tool",
    "ToolOffer",
    "WrittenCall",
]
