"""Answers of conversations, sorted into text, reasoning and calls, as they come or as a whole."""

from __future__ import annotations

from typing import Any

from layerscale_core.dialogue import AnsweredCall, AnswerParser, Piece, SortedAnswer
from layerscale_core.engine import Event, Finished, FinishReason, TokensGenerated
from layerscale_server.http.answers import Answer


class Reply:
    """One answer while it is read.

    Attributes:
        sorted: all of it so far.
    """

    def __init__(self, parser: AnswerParser) -> None:
        self._parser = parser
        self.sorted = SortedAnswer()

    @classmethod
    def of(cls, answer: Answer, parser: AnswerParser) -> Reply:
        """An answer that has ended."""
        reply = cls(parser)
        reply.sorted.add(parser.push(answer.text) + parser.finish())
        return reply

    def read(self, event: Event) -> list[Piece]:
        """The pieces that an event completes."""
        pieces: list[Piece] = []
        if isinstance(event, TokensGenerated | Finished):
            pieces += self._parser.push(event.text)
        if isinstance(event, Finished):
            pieces += self._parser.finish()
        self.sorted.add(pieces)
        return pieces

    def has_called(self, end: Finished) -> bool:
        """Whether the answer ended by asking for tools."""
        return end.reason is FinishReason.STOP and self.sorted.is_calls

    def finish_reason(self, end: Finished) -> str:
        """OpenAI's word for why it ended."""
        return "tool_calls" if self.has_called(end) else end.reason.value


class CallIds:
    """Ids for the calls of one answer.

    Args:
        prefix: what clients of the API know such ids by.
    """

    def __init__(self, prefix: str, request_id: str) -> None:
        self._stem = f"{prefix}_{request_id.removeprefix('req_')}"

    def __getitem__(self, index: int) -> str:
        return f"{self._stem}_{index}"


def openai_calls(calls: list[AnsweredCall], ids: CallIds) -> list[dict[str, Any]]:
    """Calls as OpenAI's messages hold them."""
    return [
        {"id": ids[index], "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for index, call in enumerate(calls)
    ]
