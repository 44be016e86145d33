"""``POST /v1/messages``, Anthropic's API, and the count of a conversation's tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from layerscale_core.engine import Event, Finished, FinishReason, TokensGenerated, Usage
from layerscale_server.http.answers import Answer, collect
from layerscale_server.http.anthropic_conversation import conversation_ids
from layerscale_server.http.dependencies import AcceptingModel, Model, Server, json_body
from layerscale_server.http.event_stream import ANTHROPIC, EventStreamResponse, cancelled_on_disconnect, frames_of
from layerscale_server.http.prompts import off_loop
from layerscale_server.http.schemas.messages import CountTokensRequest, MessagesRequest
from layerscale_server.http.turns import begin_turn

router = APIRouter(prefix="/v1/messages")


@router.post("")
async def messages(
    request: Request,
    server: Server,
    model: AcceptingModel,
    body: Annotated[MessagesRequest, Depends(json_body(MessagesRequest))],
) -> Response:
    """Continue a conversation, in a session if one is named."""
    session = None if body.session_id is None else model.sessions.get(body.session_id)
    request_id = request.state.request_id
    prompt = await off_loop(conversation_ids, model, body)
    sampling = body.sampling_params(body.max_tokens, stop=tuple(body.stop_sequences))
    generation = begin_turn(model, session, request_id, prompt, sampling, is_warm_up=body.warm_up)
    message = _Message(f"msg_{request_id.removeprefix('req_')}", model.model_id, len(prompt))
    if body.stream:
        heartbeat_s = server.settings.limits.heartbeat_s
        frames = frames_of(
            generation, _Events(message), heartbeat_s=heartbeat_s, request_id=request_id, dialect=ANTHROPIC
        )
        return EventStreamResponse(generation, frames)
    async with cancelled_on_disconnect(generation, request.receive):
        (answer,) = await collect(generation, num_answers=1)
    return JSONResponse(message.whole(answer))


@router.post("/count_tokens")
async def count_tokens(
    model: Model, body: Annotated[CountTokensRequest, Depends(json_body(CountTokensRequest))]
) -> Response:
    """The tokens of a conversation as it would be rendered."""
    prompt = await off_loop(conversation_ids, model, body)
    return JSONResponse({"input_tokens": len(prompt)})


class _Message:
    """How a message looks, whole and at its beginning."""

    def __init__(self, message_id: str, model_id: str, num_input_tokens: int) -> None:
        self._id = message_id
        self._model_id = model_id
        self._num_input_tokens = num_input_tokens

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The message in one piece."""
        content = [{"type": "text", "text": answer.text}]
        usage = {"input_tokens": self._num_input_tokens, **_usage(answer.end.usage)}
        return self._body(content, _reason(answer.end), usage)

    def beginning(self) -> dict[str, Any]:
        """The message before it says anything."""
        usage = {"input_tokens": self._num_input_tokens, "output_tokens": 0}
        return self._body([], {"stop_reason": None, "stop_sequence": None}, usage)

    def _body(self, content: list[Any], reason: dict[str, Any], usage: dict[str, int]) -> dict[str, Any]:
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self._model_id}
        return head | {"content": content, **reason, "usage": usage}


class _Events:
    """Events to Anthropic's: the message begins, its one block of text begins, grows and ends, the message ends."""

    def __init__(self, message: _Message) -> None:
        self._message = message
        self._has_begun = False

    def chunks(self, _index: int, event: Event) -> Iterator[dict[str, Any]]:
        """The events that tell a client of one of ours."""
        if not self._has_begun:
            self._has_begun = True
            yield {"type": "message_start", "message": self._message.beginning()}
            yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        if isinstance(event, TokensGenerated | Finished) and event.text:
            delta = {"type": "text_delta", "text": event.text}
            yield {"type": "content_block_delta", "index": 0, "delta": delta}
        if isinstance(event, Finished):
            yield {"type": "content_block_stop", "index": 0}
            yield {"type": "message_delta", "delta": _reason(event), "usage": _usage(event.usage)}
            yield {"type": "message_stop"}

    def closing(self) -> Iterator[dict[str, Any]]:
        """Nothing: the end of the message is the end of the stream."""
        return iter(())


def _reason(end: Finished) -> dict[str, str | None]:
    """Why a message ended, and with which stop sequence."""
    if end.reason is FinishReason.LENGTH:
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    reason = "end_turn" if end.stop_text is None else "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": end.stop_text}


def _usage(usage: Usage) -> dict[str, int]:
    """Tokens of the answer, and of the prompt those that were not computed, if any."""
    cached = {"cache_read_input_tokens": usage.cached_tokens} if usage.cached_tokens else {}
    return {"output_tokens": usage.completion_tokens, **cached}
