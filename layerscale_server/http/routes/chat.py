"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from layerscale_core.engine import request as engine
from layerscale_core.specs import Tokenizer
from layerscale_server.http.answers import Answer, ResponseHead, collect
from layerscale_server.http.dependencies import AcceptingModel, Server, json_body
from layerscale_server.http.event_stream import EventStreamResponse, cancelled_on_disconnect, frames_of
from layerscale_server.http.logprobs import chat_logprobs
from layerscale_server.http.prompts import chat_ids, off_loop
from layerscale_server.http.schemas.chat import ChatRequest
from layerscale_server.http.structured_output import constraint_of
from layerscale_server.http.turns import begin_turn

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat(
    request: Request,
    server: Server,
    model: AcceptingModel,
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
) -> Response:
    """Continue a conversation, in a session if one is named."""
    session = None if body.session_id is None else model.sessions.get(body.session_id)
    request_id = request.state.request_id
    prompt = await off_loop(chat_ids, model, body.messages)
    sampling = body.sampling_params(body.answer_tokens, stop=tuple(body.stop), logprobs=body.num_logprobs)
    constraint = await constraint_of(model, body)
    generation = begin_turn(model, session, request_id, prompt, sampling, constraint=constraint)
    shape = _Shape(ResponseHead(f"chatcmpl-{request_id.removeprefix('req_')}", model.model_id), model.tokenizer, body)
    if body.stream:
        heartbeat_s = server.settings.limits.heartbeat_s
        frames = frames_of(generation, _Chunks(shape), heartbeat_s=heartbeat_s, request_id=request_id)
        return EventStreamResponse(generation, frames)
    async with cancelled_on_disconnect(generation, request.receive):
        (answer,) = await collect(generation, num_answers=1)
    return JSONResponse(shape.whole(answer))


class _Shape:
    """How whole answers and chunks look."""

    def __init__(self, head: ResponseHead, tokenizer: Tokenizer, body: ChatRequest) -> None:
        self._head = head
        self._tokenizer = tokenizer
        self._has_logprobs = body.logprobs
        self.include_usage = body.stream_options.include_usage

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer in one piece."""
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": answer.text}}
        choice["logprobs"] = chat_logprobs(self._tokenizer, answer.logprobs) if self._has_logprobs else None
        choice["finish_reason"] = answer.end.reason.value
        return self._head.body("chat.completion", [choice], [answer.end.usage])

    def chunk(
        self, delta: dict[str, str], reason: str | None = None, logprobs: Sequence[engine.TokenLogprob] = ()
    ) -> dict[str, Any]:
        """A piece of the answer."""
        choice: dict[str, Any] = {"index": 0, "delta": delta}
        if logprobs:
            choice["logprobs"] = chat_logprobs(self._tokenizer, logprobs)
        choice["finish_reason"] = reason
        return self._head.body("chat.completion.chunk", [choice])

    def usage_chunk(self, usage: engine.Usage) -> dict[str, Any]:
        """The last chunk, when usage was asked for."""
        return self._head.body("chat.completion.chunk", [], [usage])


class _Chunks:
    """Events to chunks: the role, the text, the reason it ended, and the usage if asked for."""

    def __init__(self, shape: _Shape) -> None:
        self._shape = shape
        self._has_begun = False
        self._usage: engine.Usage | None = None

    def chunks(self, _index: int, event: engine.Event) -> Iterator[dict[str, Any]]:
        """The chunks that tell a client of an event."""
        if not self._has_begun:
            self._has_begun = True
            yield self._shape.chunk({"role": "assistant", "content": ""})
        if isinstance(event, engine.TokensGenerated) and (event.text or event.logprobs):
            yield self._shape.chunk({"content": event.text}, logprobs=event.logprobs)
        elif isinstance(event, engine.Finished):
            self._usage = event.usage
            if event.text:
                yield self._shape.chunk({"content": event.text})
            yield self._shape.chunk({}, event.reason.value)

    def closing(self) -> Iterator[dict[str, Any]]:
        """The usage, if it was asked for."""
        if self._shape.include_usage and self._usage is not None:
            yield self._shape.usage_chunk(self._usage)
