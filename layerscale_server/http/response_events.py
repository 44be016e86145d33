"""OpenAI's responses as events: the response begins, its items come one after the other, the response ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from layerscale_core.dialogue import (
    AnsweredCall,
    CallArguments,
    CallBegun,
    CallEnded,
    Piece,
    ReasoningPiece,
    TextPiece,
)
from layerscale_core.engine import Event, Finished, FinishReason
from layerscale_server.http.errors import envelope
from layerscale_server.http.event_stream import Dialect, event_frame
from layerscale_server.http.replies import Reply
from layerscale_server.http.response_items import (
    Item,
    call_item,
    message_item,
    reasoning_item,
    reasoning_part,
    text_part,
)
from layerscale_server.http.responses import ResponseShape

Chunk = dict[str, Any]


def _error_event(error: Exception, request_id: str) -> Chunk:
    """OpenAI's event, and the envelope in it, which makes the SDK raise."""
    told = envelope(error, request_id)
    return {"type": "error"} | {name: told["error"][name] for name in ("code", "message", "param")} | told


RESPONSES = Dialect(event_frame, _error_event)


class ResponseEvents:
    """Writes one response.

    Args:
        when_finished: told the whole response before the client is.
    """

    def __init__(self, shape: ResponseShape, reply: Reply, when_finished: Callable[[Reply, Chunk], None]) -> None:
        self._shape = shape
        self._reply = reply
        self._when_finished = when_finished
        self._numbers = itertools.count()
        self._has_begun = False
        self._num_items = 0
        self._open: _OpenItem | None = None

    def chunks(self, _index: int, event: Event) -> Iterator[Chunk]:
        """The events that tell a client of one of ours, numbered."""
        for chunk in self._told(event):
            yield chunk | {"sequence_number": next(self._numbers)}

    def closing(self) -> Iterator[Chunk]:
        """Nothing: the last event ends the stream."""
        return iter(())

    def _told(self, event: Event) -> Iterator[Chunk]:
        if not self._has_begun:
            self._has_begun = True
            for kind in ("created", "in_progress"):
                yield {"type": f"response.{kind}", "response": self._shape.at("in_progress")}
        for piece in self._reply.read(event):
            yield from self._grow(piece)
        if isinstance(event, Finished):
            if self._open is None and self._num_items == 0:
                yield from self._in_item(_TEXT)
            yield from self._end("incomplete" if event.reason is FinishReason.LENGTH else "completed")
            response = self._shape.finished(self._reply, event)
            self._when_finished(self._reply, response)
            yield {"type": f"response.{response['status']}", "response": response}

    def _grow(self, piece: Piece) -> Iterator[Chunk]:
        match piece:
            case TextPiece(text) | ReasoningPiece(text):
                yield from self._in_item(_TEXT if isinstance(piece, TextPiece) else _REASONING)
                yield from self._delta(text)
            case CallBegun(index, name):
                yield from self._end("completed")
                call_id = self._shape.call_ids[index]
                yield from self._begin(_OpenCall(self._item_id, self._num_items, call_id, AnsweredCall(name)))
            case CallArguments(_, text):
                yield from self._delta(text)
            case CallEnded():
                yield from self._end("completed")

    @property
    def _item_id(self) -> str:
        return self._shape.item_ids[self._num_items]

    def _in_item(self, kind: _Kind) -> Iterator[Chunk]:
        """Begin an item, unless one of its kind is open."""
        if not (isinstance(self._open, _OpenText) and self._open.kind is kind):
            yield from self._end("completed")
            yield from self._begin(_OpenText(self._item_id, self._num_items, kind))

    def _begin(self, item: _OpenItem) -> Iterator[Chunk]:
        self._open = item
        yield from item.begin()

    def _delta(self, text: str) -> Iterator[Chunk]:
        assert self._open is not None
        yield self._open.grow(text)

    def _end(self, status: str) -> Iterator[Chunk]:
        if self._open is not None:
            yield from self._open.end(status)
            self._open = None
            self._num_items += 1


class _OpenItem(Protocol):
    """An item of which more may come."""

    def begin(self) -> Iterator[Chunk]: ...

    def grow(self, text: str) -> Chunk: ...

    def end(self, status: str) -> Iterator[Chunk]: ...


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of item that is made of text.

    Attributes:
        further: what events of its text have besides.
    """

    event: str
    make_item: Callable[[str, str | None, str], Item]
    make_part: Callable[[str], dict[str, Any]]
    further: dict[str, Any]


_TEXT = _Kind("response.output_text", message_item, text_part, {"logprobs": []})
_REASONING = _Kind("response.reasoning_text", reasoning_item, reasoning_part, {})


@dataclass(slots=True)
class _OpenText:
    item_id: str
    index: int
    kind: _Kind
    text: str = ""

    def begin(self) -> Iterator[Chunk]:
        yield _added(self.index, self.kind.make_item(self.item_id, None, "in_progress"))
        yield {"type": "response.content_part.added", **self._place(), "part": self.kind.make_part("")}

    def grow(self, text: str) -> Chunk:
        self.text += text
        return {"type": f"{self.kind.event}.delta", **self._place(), "delta": text, **self.kind.further}

    def end(self, status: str) -> Iterator[Chunk]:
        yield {"type": f"{self.kind.event}.done", **self._place(), "text": self.text, **self.kind.further}
        yield {"type": "response.content_part.done", **self._place(), "part": self.kind.make_part(self.text)}
        yield _done(self.index, self.kind.make_item(self.item_id, self.text, status))

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.item_id, "output_index": self.index, "content_index": 0}


@dataclass(slots=True)
class _OpenCall:
    item_id: str
    index: int
    call_id: str
    call: AnsweredCall

    def begin(self) -> Iterator[Chunk]:
        yield _added(self.index, call_item(self.item_id, self.call_id, self.call, "in_progress"))

    def grow(self, text: str) -> Chunk:
        self.call = replace(self.call, arguments=self.call.arguments + text)
        return {"type": "response.function_call_arguments.delta", **self._place(), "delta": text}

    def end(self, status: str) -> Iterator[Chunk]:
        arguments = {"name": self.call.name, "arguments": self.call.arguments}
        yield {"type": "response.function_call_arguments.done", **self._place(), **arguments}
        yield _done(self.index, call_item(self.item_id, self.call_id, self.call, status))

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.item_id, "output_index": self.index}


def _added(index: int, item: Item) -> Chunk:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def _done(index: int, item: Item) -> Chunk:
    return {"type": "response.output_item.done", "output_index": index, "item": item}
