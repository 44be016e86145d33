"""Anthropic's messages, whole and as events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from layerscale_core.dialogue import AnsweredCall, CallArguments, CallBegun, CallEnded, Piece, ReasoningPiece, TextPiece
from layerscale_core.engine import Event, Finished, FinishReason, Usage
from layerscale_server.http.replies import CallIds, Reply


class AnthropicMessage:
    """How a message looks, whole and at its beginning."""

    def __init__(self, request_id: str, model_id: str, num_input_tokens: int, *, shows_thinking: bool) -> None:
        self._id = f"msg_{request_id.removeprefix('req_')}"
        self._model_id = model_id
        self._num_input_tokens = num_input_tokens
        self.shows_thinking = shows_thinking
        self.call_ids = CallIds("toolu", request_id)

    def whole(self, reply: Reply, end: Finished) -> dict[str, Any]:
        """The message in one piece."""
        usage = {"input_tokens": self._num_input_tokens, **usage_of(end.usage)}
        return self._body(list(self._content(reply)), reason_of(reply, end), usage)

    def beginning(self) -> dict[str, Any]:
        """The message before it says anything."""
        usage = {"input_tokens": self._num_input_tokens, "output_tokens": 0}
        return self._body([], {"stop_reason": None, "stop_sequence": None}, usage)

    def _content(self, reply: Reply) -> Iterator[dict[str, Any]]:
        """Thinking, text and calls, the text also where it is empty and there is nothing else."""
        said = reply.sorted
        shows_thinking = self.shows_thinking and bool(said.reasoning)
        if shows_thinking:
            yield thinking_block(said.reasoning)
        if said.text or not (said.calls or shows_thinking):
            yield {"type": "text", "text": said.text}
        for index, call in enumerate(said.calls):
            yield call_block(self.call_ids[index], call.name, _input_of(call))

    def _body(self, content: list[Any], reason: dict[str, Any], usage: dict[str, int]) -> dict[str, Any]:
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self._model_id}
        return head | {"content": content, **reason, "usage": usage}


class AnthropicEvents:
    """Events to Anthropic's: the message begins, its blocks come one after the other, the message ends."""

    def __init__(self, message: AnthropicMessage, reply: Reply) -> None:
        self._message = message
        self._reply = reply
        self._has_begun = False
        self._num_blocks = 0
        self._open_block: type[Piece] | None = None

    def chunks(self, _index: int, event: Event) -> Iterator[dict[str, Any]]:
        """The events that tell a client of one of ours."""
        if not self._has_begun:
            self._has_begun = True
            yield {"type": "message_start", "message": self._message.beginning()}
        for piece in self._reply.read(event):
            yield from self._grow(piece)
        if isinstance(event, Finished):
            if self._num_blocks == 0:
                yield from self._in_block(TextPiece, {"type": "text", "text": ""})
            yield from self._end_block()
            reason = reason_of(self._reply, event)
            yield {"type": "message_delta", "delta": reason, "usage": usage_of(event.usage)}
            yield {"type": "message_stop"}

    def closing(self) -> Iterator[dict[str, Any]]:
        """Nothing: the end of the message is the end of the stream."""
        return iter(())

    def _grow(self, piece: Piece) -> Iterator[dict[str, Any]]:
        match piece:
            case ReasoningPiece(text) if self._message.shows_thinking:
                yield from self._in_block(ReasoningPiece, thinking_block(""))
                yield self._delta({"type": "thinking_delta", "thinking": text})
            case TextPiece(text):
                yield from self._in_block(TextPiece, {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": text})
            case CallBegun(index, name):
                yield from self._end_block()
                yield from self._in_block(CallBegun, call_block(self._message.call_ids[index], name, {}))
            case CallArguments(_, text):
                yield self._delta({"type": "input_json_delta", "partial_json": text})
            case CallEnded():
                yield from self._end_block()

    def _in_block(self, kind: type[Piece], block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Begin a block, unless one of its kind is open."""
        if self._open_block is not kind:
            yield from self._end_block()
            self._open_block = kind
            yield {"type": "content_block_start", "index": self._num_blocks, "content_block": block}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._num_blocks, "delta": delta}

    def _end_block(self) -> Iterator[dict[str, Any]]:
        if self._open_block is not None:
            self._open_block = None
            yield {"type": "content_block_stop", "index": self._num_blocks}
            self._num_blocks += 1


def thinking_block(text: str) -> dict[str, Any]:
    """A block of thinking. Nothing is signed here, and nothing is checked when it comes back."""
    return {"type": "thinking", "thinking": text, "signature": ""}


def call_block(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    """A block that asks for a tool."""
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def reason_of(reply: Reply, end: Finished) -> dict[str, str | None]:
    """Why a message ended, and with which stop sequence."""
    if end.reason is FinishReason.LENGTH:
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    if end.stop_text is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": end.stop_text}
    return {"stop_reason": "tool_use" if reply.has_called(end) else "end_turn", "stop_sequence": None}


def usage_of(usage: Usage) -> dict[str, int]:
    """Tokens of the answer, and of the prompt those that were not computed, if any."""
    cached = {"cache_read_input_tokens": usage.cached_tokens} if usage.cached_tokens else {}
    return {"output_tokens": usage.completion_tokens, **cached}


def _input_of(call: AnsweredCall) -> Any:
    """A call's arguments; of one that was cut off, the members that are whole, as the SDK makes of its stream."""
    return from_json(call.arguments, allow_partial=True) if call.arguments else {}
