"""A whole answer, put together from its pieces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from layerscale_core.dialogue.pieces import CallArguments, CallBegun, CallEnded, Piece, ReasoningPiece, TextPiece


@dataclass(slots=True)
class AnsweredCall:
    """A call that a model made.

    Attributes:
        arguments: JSON text of an object; only its beginning where ``is_whole`` is false.
    """

    name: str
    arguments: str = ""
    is_whole: bool = False


@dataclass(slots=True)
class SortedAnswer:
    """What an answer says, by kind."""

    text: str = ""
    reasoning: str = ""
    calls: list[AnsweredCall] = field(default_factory=list)

    @property
    def is_calls(self) -> bool:
        """Whether it asks for tools, and no call of it was cut off."""
        return bool(self.calls) and self.calls[-1].is_whole

    def add(self, pieces: Iterable[Piece]) -> None:
        """Go on with these."""
        for piece in pieces:
            match piece:
                case TextPiece(text):
                    self.text += text
                case ReasoningPiece(text):
                    self.reasoning += text
                case CallBegun(_, name):
                    self.calls.append(AnsweredCall(name))
                case CallArguments(index, text):
                    self.calls[index].arguments += text
                case CallEnded(index):
                    self.calls[index].is_whole = True
