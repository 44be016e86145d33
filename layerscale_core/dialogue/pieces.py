"""What an answer is made of, piece by piece."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextPiece:
    """The next part of what is said to the user."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningPiece:
    """The next part of the reasoning that precedes an answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call of a tool began. Calls count from 0 and do not overlap."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next part of a call's arguments, which are one JSON object together."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call's arguments are complete. A call that was cut off has no such piece."""

    index: int


Piece = TextPiece | ReasoningPiece | CallBegun | CallArguments | CallEnded
