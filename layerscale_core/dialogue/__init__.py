"""How a model converses: tools offered in its prompts, and answers taken apart into reasoning, text and calls."""

from layerscale_core.dialogue.call_syntax import CallSyntax, WrittenCall
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
    "AnswerParser",
    "AnswerPlan",
    "CallArguments",
    "CallBegun",
    "CallEnded",
    "CallSyntax",
    "Dialogue",
    "Piece",
    "ReasoningMarkers",
    "ReasoningPiece",
    "TextPiece",
    "Tool",
    "ToolOffer",
    "WrittenCall",
]
